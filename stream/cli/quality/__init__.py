"""Commands that say what the tags are worth."""
