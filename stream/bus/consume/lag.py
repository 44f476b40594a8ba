"""Lag in time: how long an event took to its commit, and how old the oldest is that is not committed."""

import time
from collections.abc import Iterable, Mapping

from tagbus.stream import telemetry
from tagbus.stream.bus.consume.batching import PartitionBuffer
from tagbus.stream.bus.in_flight import InFlight, InFlightBatch
from tagbus.stream.kafka.message import Partition


def observe(entry: InFlightBatch) -> None:
    """A batch is committed. An event's time is its own, or else its record's."""
    now = time.time()
    times = (
        source.timestamp if outcome.event_time is None else outcome.event_time
        for source, outcome in zip(entry.batch.sources, entry.outcomes or (), strict=True)
    )
    # The producer's clock may be ahead of this one.
    telemetry.EVENT_TO_COMMIT.observe([max(0.0, now - made) for made in times if made is not None])


def report(in_flight: InFlight, buffers: Mapping[Partition, PartitionBuffer]) -> None:
    """Set the age of the oldest uncommitted record of each partition; 0 where all is committed."""
    now = time.time()
    for partition, buffer in buffers.items():
        entry = in_flight.first(partition)
        made = buffer.time if entry is None else entry.batch.sources[0].timestamp
        telemetry.OLDEST_UNCOMMITTED.labels(partition=str(partition[1])).set(
            0.0 if made is None else max(0.0, now - made)
        )


def forget(partitions: Iterable[Partition]) -> None:
    """Partitions that are gone: another worker reports them now."""
    for _, number in partitions:
        telemetry.OLDEST_UNCOMMITTED.remove(str(number))
