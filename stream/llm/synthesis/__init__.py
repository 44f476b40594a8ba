"""Synthesis: a language model writes exemplars for tags that have few, and descriptions for bare names."""
