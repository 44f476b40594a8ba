"""tagbus.stream: the service. Content events come in on Kafka, scored and explained tags go out."""
