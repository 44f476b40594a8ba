"""Texts to vectors: one interface, and the release that identifies the encoder of a vector."""
