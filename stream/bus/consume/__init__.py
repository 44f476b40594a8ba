"""From Kafka to batches: the poll thread."""
