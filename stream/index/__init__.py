"""The index: memory as a materialized view of the `tags` and `exemplars` topics, the source of truth."""
