"""Batch APIs: many questions in a file, answered within a day for half the price."""
