"""Commands for editors of the taxonomy: import and export of tags and exemplars."""
