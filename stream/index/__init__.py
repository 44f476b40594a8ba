"""The index: memory as a view of the `tags` and `exemplars` topics, which are the truth."""
