"""Recall: from a content's vector to its candidates, each with a score and its evidence."""
