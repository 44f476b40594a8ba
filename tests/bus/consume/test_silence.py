"""Partitions that the client does not report on are assigned again, and no others."""

from dataclasses import dataclass
from typing import cast

import pytest
from confluent_kafka import KafkaError, Message

from tagbus.stream.bus.consume import silence
from tagbus.stream.bus.consume.batching import PartitionBuffer
from tagbus.stream.bus.consume.bounds import NO_END
from tagbus.stream.bus.consume.silence import Silence
from tagbus.stream.kafka.message import Partition

A, B = ("content", 0), ("content", 1)


@dataclass
class Told:
    """The client's report on a partition."""

    place: Partition
    code: int | None = None

    def topic(self) -> str:
        return self.place[0]

    def partition(self) -> int:
        return self.place[1]

    def error(self) -> KafkaError | None:
        return None if self.code is None else KafkaError(self.code)


class Client:
    """A client that is polled every second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(silence.time, "monotonic", lambda: self.now)
        self.silence = Silence()
        self.buffers = {partition: PartitionBuffer(NO_END) for partition in (A, B)}

    def asked(self, seconds: int, *told: Told, drained: bool = True) -> list[Partition]:
        found: list[Partition] = []
        for _ in range(seconds):
            self.now += 1
            messages = [cast(Message, one) for one in told]
            found += self.silence.listen(messages, self.buffers, drained=drained)
        return found


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(monkeypatch)
    made.silence.expect([A, B])
    made.asked(1)
    return made


def test_a_silent_partition_is_fetched_again_while_another_reports(client: Client) -> None:
    assert client.asked(9, Told(A)) == []
    assert client.asked(3, Told(A)) == [B]


def test_a_report_may_be_due_sooner(client: Client) -> None:
    client.silence.expect([A], 3)
    assert client.asked(2) == []
    assert client.asked(2) == [A]
    client.silence.hasten(2)
    assert client.asked(1) == []
    assert client.asked(2) == [A, B]


def test_the_end_of_a_partition_says_enough_and_an_error_does_not(client: Client) -> None:
    assert client.asked(30, Told(A, KafkaError._PARTITION_EOF), Told(B, KafkaError._ALL_BROKERS_DOWN))[:1] == [B]
    assert A not in client.asked(30)


def test_it_is_fetched_again_until_it_reports(client: Client) -> None:
    assert client.asked(35, Told(A)) == [B, B, B]
    assert client.asked(30, Told(B)) == []


def test_it_has_time_while_brokers_are_away_or_the_client_has_more(client: Client) -> None:
    assert client.asked(30, drained=False) == []


def test_it_has_time_while_the_client_is_not_asked(client: Client) -> None:
    client.now += 60
    assert client.asked(9) == []


def test_a_paused_or_revoked_partition_owes_no_report(client: Client) -> None:
    client.buffers[A].paused = True
    del client.buffers[B]
    assert client.asked(30) == []
