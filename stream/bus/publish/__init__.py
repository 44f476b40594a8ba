"""Results, dead letters and offsets to Kafka: the publish thread."""
