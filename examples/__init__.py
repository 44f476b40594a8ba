"""The example data, which travels in the wheel."""
