"""Training of encoder, cross-encoder, classifier heads and label trees."""
