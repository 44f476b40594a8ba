"""Web knowledge: the results of a search as a second source of knowledge for prompts."""
