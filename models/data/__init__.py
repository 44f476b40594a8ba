"""Training data: contents with known tags, and their file formats."""
