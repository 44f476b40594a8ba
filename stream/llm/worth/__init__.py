"""The judge's value: its weight beside the ranker, and the contents that need it."""
