"""Commands of those who keep the taxonomy: tags and exemplars from files, and back."""
