"""Recall by words: tag names that occur in a content, and BM25 over exemplars and tags."""
