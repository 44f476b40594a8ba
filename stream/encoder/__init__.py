"""Texts to vectors: one interface, and the release that says which encoder made a vector."""
