"""The group metadata for transactions (KIP-447), and which generation of the group it may have.

A broker accepts offsets from any member of the current generation, whatever partitions the member owns. So a generation
must not be used for partitions that belong to another member in it. With the classic protocol, partitions that a member
gives away have no owner until its rebalance callback returns. Then it joins the next generation, and they get one.

librdkafka breaks this: when the metadata of the topic changes (a new partition; with client.rack, a replica that
moved), it joins the group again immediately, even while the callback waits for batches in flight. Without the check
below, 50 of 50 results in flight were published again by the next owner.
"""

import struct
from typing import Final, Protocol

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import Fatal
from tagbus.stream.kafka import clients

# How librdkafka serializes group metadata: the format's version, and the generation.
_FORMAT: Final = struct.Struct("=7si")
_KNOWN: Final = (b"CGMDv1:", b"CGMDv2:")


class Member(Protocol):
    """A consumer that is in a group."""

    def consumer_group_metadata(self) -> object:
        """The current metadata, serialized."""
        ...


class GroupGeneration:
    """The usable group metadata of one member. Belongs to the poll thread, but for `metadata`."""

    def __init__(self, consumer: Member, kafka: KafkaSettings) -> None:
        self._consumer = consumer
        # How far a generation may be past that of the last callback: a cooperative member gives partitions away in the
        # next one, an eager one before it joins that. With KIP-848 the coordinator waits for the callback itself.
        strategy = kafka.options.get("partition.assignment.strategy", clients.ASSIGNOR)
        self._ahead = None if kafka.group_protocol == "consumer" else int("cooperative" in strategy)
        self._settled = -1
        # What transactions use.
        self.metadata: object = None

    def ask(self) -> bool:
        """Refresh the metadata. Returns False, and keeps it, if partitions that are not yet given away may belong to
        another member in the current generation. Raises Fatal for a client that serializes it in an unknown format."""
        found = self._consumer.consumer_group_metadata()
        if self._ahead is not None and generation_of(found) > self._settled + self._ahead:
            return False
        self.metadata = found
        return True

    def settle(self) -> None:
        """A rebalance callback has done its work. Where the client joined another generation meanwhile, that one's
        callback is still to come, and takes partitions away in it."""
        self.metadata = self._consumer.consumer_group_metadata()
        found = generation_of(self.metadata)
        overtaken = self._ahead and 0 <= self._settled < found - self._ahead
        self._settled = found - 1 if overtaken else found

    def lost(self) -> None:
        """All partitions are gone: there is no callback to come for them."""
        self._settled = -1
        self.settle()


def generation_of(metadata: object) -> int:
    """The generation in serialized group metadata; -1 for none. Raises Fatal for an unknown format."""
    if isinstance(metadata, bytes) and len(metadata) >= _FORMAT.size:
        version, generation = _FORMAT.unpack_from(metadata)
        if version in _KNOWN:
            return int(generation)
    expected = " or ".join(one.decode() for one in _KNOWN)
    raise Fatal(f"confluent-kafka serializes group metadata as {metadata!r:.40}, expected {expected}: pin its version")
