"""Offsets that follow the results, at least once: they hold up no batch, and all of them are committed."""

import threading
from typing import Any

import confluent_kafka
import pytest

from tagbus.stream.config import Settings
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import at_least_once, events, running, until_all_out
from tests.bus.taggers import Gated
from tests.support import produce, wait_until

COUNT = 50


def committed(address: str, given: Settings) -> int:
    """How many records of the topic content are committed."""
    reader = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": given.kafka.group})
    partitions = reader.list_topics("content", 10).topics["content"].partitions
    found = reader.committed([confluent_kafka.TopicPartition("content", number) for number in partitions], timeout=10)
    reader.close()
    return sum(max(0, one.offset) for one in found)


def test_results_are_sent_while_earlier_offsets_are_committed(
    mock_kafka: MockCluster, mock_topics: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    class Slow(confluent_kafka.Consumer):
        def commit(self, *arguments: Any, **named: Any) -> Any:
            # The first commits record that the worker has started (crash_loop.py).
            if any(offset.offset > 0 for offset in named["offsets"]):
                asked.set()
                assert answer.wait(120)
            return super().commit(*arguments, **named)

    monkeypatch.setattr(clients, "Consumer", Slow)
    produce(mock_kafka.address, "content", events(COUNT), 0)
    given = at_least_once(mock_kafka, mock_topics, batch={"contents": 10, "seconds": 600, "in_flight": 8})
    tagger = Gated(lambda _: True)
    with running(given, tagger):
        wait_until(lambda: tagger.waiting == COUNT // 10, 120, "all batches in processing")
        tagger.open = True
        until_all_out(mock_kafka.address, {"tagged": "tagged", "dead_letters": "dead_letters"}, COUNT)
        wait_until(asked.is_set, 120)
        answer.set()
        wait_until(lambda: committed(mock_kafka.address, given) == COUNT, 120)
