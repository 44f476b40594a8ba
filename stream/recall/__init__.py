"""Recall: from a content's vector to scored candidates with evidence."""
