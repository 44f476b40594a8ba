"""Recall by words: names that stand in a content, and BM25 over contents and tags."""
