"""Training of the ranker, on validation contents or out of fold."""
