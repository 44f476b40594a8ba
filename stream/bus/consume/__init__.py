"""Records from Kafka, cut into batches: the poll thread."""
