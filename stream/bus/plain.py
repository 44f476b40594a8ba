"""Clients for a person at a terminal: they send and look, and take no part in the delivery of results."""

from confluent_kafka import Consumer, Producer

from tagbus.stream.bus.client import UserErrors
from tagbus.stream.config import Settings


def plain_producer(settings: Settings) -> Producer:
    """For tags, exemplars and contents that a person publishes."""
    with UserErrors(settings.kafka):
        return Producer(
            {
                **settings.kafka.client(),
                # A broker that has just started is retried in silence; what fails in the end is an error of the call.
                "log_level": 3,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.max.bytes": 10_000_000,
                "linger.ms": 20,
            }
        )


def reader(settings: Settings) -> Consumer:
    """Assigned by hand, commits nothing, sees committed records only."""
    with UserErrors(settings.kafka):
        return Consumer(
            {
                **settings.kafka.client(),
                # librdkafka wants a group; nothing joins it.
                "group.id": f"{settings.kafka.group}-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
