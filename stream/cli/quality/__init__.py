"""Commands that measure the quality of tags."""
