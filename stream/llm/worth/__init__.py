"""What the judge is worth: its weight beside the ranker, and the contents that need it."""
