"""Vocabularies as files: SKOS, CSV, TSV, JSON lines and Annif's formats, to tags and back."""
