"""Which generation of the group transactions may use. Against a real broker: tests/kafka/test_rebalance.py."""

import struct

import pytest

from tagbus.stream.bus.consume.generation import GroupGeneration, generation_of
from tagbus.stream.errors import Fatal
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import settings


class Scripted:
    """A member of the generation that the test sets."""

    def __init__(self) -> None:
        self.generation = -1

    def consumer_group_metadata(self) -> object:
        return struct.pack("=7si", b"CGMDv2:", self.generation) + b"group\0member\0\1"


def group(member: Scripted, **kafka: object) -> GroupGeneration:
    return GroupGeneration(member, settings("127.0.0.1:9", kafka=kafka).kafka)


def usable(of: GroupGeneration) -> int:
    """The generation that a transaction would use."""
    return generation_of(of.metadata)


def test_it_reads_what_the_real_client_serializes(mock_kafka: MockCluster) -> None:
    consumer = clients.group_member(settings(mock_kafka.address), lambda _: None)
    assert generation_of(consumer.consumer_group_metadata()) == -1
    consumer.close()


@pytest.mark.parametrize("metadata", [None, b"", b"CGMDv2:", b"CGMDv9:\1\0\0\0group\0", "CGMDv2:\1\0\0\0"])
def test_an_unknown_format_is_named(metadata: object) -> None:
    with pytest.raises(Fatal, match="expected CGMDv1: or CGMDv2:"):
        generation_of(metadata)


def test_a_cooperative_member_uses_the_generation_in_which_it_gives_partitions_away_and_none_after() -> None:
    # Given a member whose last callback was in generation 7
    member = Scripted()
    of = group(member)
    member.generation = 7
    of.settle()
    # When the next one takes partitions away, its batches in flight may commit
    member.generation = 8
    assert of.ask()
    assert usable(of) == 8
    # When the client joins another before they are given away, they may not
    member.generation = 9
    assert not of.ask()
    assert usable(of) == 8
    # Until they are
    of.settle()
    assert usable(of) == 9
    assert of.ask()


def test_a_callback_that_another_generation_overtakes_leaves_that_one_s_to_come() -> None:
    # Given a callback in generation 8, during which the client joined 9, whose callback is still to come
    member = Scripted()
    of = group(member)
    member.generation = 7
    of.settle()
    member.generation = 9
    of.settle()
    assert of.ask()
    # When the client joins 10 before that callback is done, what it gives away may be another member's
    member.generation = 10
    assert not of.ask()
    assert usable(of) == 9
    # And once no callback is to come, one that is served in a generation already known ends the doubt
    of.settle()
    of.settle()
    member.generation = 11
    assert of.ask()


def test_after_all_partitions_are_lost_the_first_generation_is_no_surprise() -> None:
    member = Scripted()
    of = group(member)
    member.generation = 7
    of.settle()
    member.generation = 40
    of.lost()
    member.generation = 41
    assert of.ask()
    assert usable(of) == 41


def test_an_eager_member_gives_partitions_away_before_it_joins_the_next() -> None:
    member = Scripted()
    of = group(member, options={"partition.assignment.strategy": "range"})
    member.generation = 7
    of.settle()
    assert of.ask()
    member.generation = 8
    assert not of.ask()
    assert usable(of) == 7


def test_with_kip_848_the_coordinator_waits_and_every_epoch_is_usable() -> None:
    member = Scripted()
    of = group(member, group_protocol="consumer")
    for epoch in (1, 2, 40):
        member.generation = epoch
        assert of.ask()
        assert usable(of) == epoch
