"""People's decisions: joining them to exemplars, learning from them, and choosing what to show. No Kafka client."""
