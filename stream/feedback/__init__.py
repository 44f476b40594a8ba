"""What people decide: joined to exemplars, and what they are shown. No Kafka client."""
