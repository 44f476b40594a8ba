"""Clients for a person at a terminal: they send and look, and take no part in the delivery of results."""

import logging
from collections.abc import Mapping

from confluent_kafka import Consumer, Producer

from tagbus.stream.config import Settings
from tagbus.stream.kafka.client import UserErrors

# librdkafka's lines would stand between those of the command: what fails in the end is an error of the call.
_SILENT = logging.getLogger(f"{__name__}.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def plain_producer(settings: Settings) -> Producer:
    """For tags, exemplars and contents that a person publishes."""
    with UserErrors(settings.kafka):
        return Producer(
            {
                **settings.kafka.client(),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.max.bytes": 10_000_000,
                "linger.ms": 20,
            },
            logger=_SILENT,
        )


def reader(settings: Settings) -> Consumer:
    """Assigned by hand, commits nothing, sees committed records only."""
    return _reader(settings, {})


def reader_to_end(settings: Settings) -> Consumer:
    """The same; it also tells where a partition ends (_PARTITION_EOF)."""
    return _reader(settings, {"enable.partition.eof": True})


def _reader(settings: Settings, more: Mapping[str, bool]) -> Consumer:
    with UserErrors(settings.kafka):
        return Consumer(
            {
                **settings.kafka.client(),
                # librdkafka wants a group; nothing joins it.
                "group.id": f"{settings.kafka.group}-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                **more,
            },
            logger=_SILENT,
        )
