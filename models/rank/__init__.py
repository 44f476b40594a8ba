"""Training of the ranker, on held-out contents or out of fold."""
