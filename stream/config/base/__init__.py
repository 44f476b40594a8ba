"""The building blocks of every group of settings."""
