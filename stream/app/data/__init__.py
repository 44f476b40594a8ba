"""Folders of data: the example data, and a collection of contents with their tags."""
