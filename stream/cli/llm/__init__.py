"""Commands about the language model."""
