"""Training data: contents whose tags are known, and the formats that they come in."""
