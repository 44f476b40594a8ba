"""From results to Kafka: the publish thread."""
