"""The example data, included in the wheel."""
