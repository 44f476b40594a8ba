"""Known duplicates, bounded in number for any input."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given, strategies

from tagbus.stream.bus.process.duplicates import Duplicates, Seen
from tagbus.stream.bus.processor import Batch
from tagbus.stream.contract.events import Content
from tests.bus.harness import event, running, settings
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, wait_until

BATCH = Batch(("content", 0), 1, (), 0, 0.0)


def content(name: str) -> Content:
    return Content(id=name, text="Some text.")


def publish(duplicates: Duplicates, name: str) -> Seen:
    seen = duplicates.come(content(name), BATCH, 1)
    seen.published = True
    return seen


@given(strategies.lists(strategies.sampled_from("abcdefgh")))
def test_it_never_remembers_more_than_its_bound(names: list[str]) -> None:
    duplicates = Duplicates(6)
    for name in names:
        publish(duplicates, name)
        assert len(duplicates) <= 6


def test_what_comes_often_is_remembered() -> None:
    duplicates = Duplicates(10)
    last = publish(duplicates, "often")
    for offset in range(1, 50):
        publish(duplicates, f"c{offset}")
        assert duplicates.before(content("often"), BATCH) is last
        last = publish(duplicates, "often")


def test_one_from_another_partition_does_not_count() -> None:
    duplicates = Duplicates(10)
    publish(duplicates, "a")
    assert duplicates.before(content("a"), Batch(("content", 1), 1, (), 0, 0.0)) is None


@pytest.mark.kafka
@pytest.mark.parametrize(("duplicates", "published"), [("publish", 3), ("skip", 1)])
def test_a_duplicate_is_committed_whether_it_is_published_or_not(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], duplicates: str, published: int
) -> None:
    names = topics({"content": 1, "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 1})
    chosen, tagger = settings(kafka.address, names, triage={"duplicates": duplicates}), Trivial()
    watcher = Consumer({"bootstrap.servers": kafka.address, "group.id": chosen.kafka.group})

    def more_than(offset: int) -> bool:
        (partition,) = watcher.committed([TopicPartition(names["content"], 0)], 10)
        return partition.offset > offset

    with running(chosen, tagger) as run:
        run.until_ready()
        for offset in range(3):
            produce(kafka.address, names["content"], [(b"a", event("a", version=1), [])])
            wait_until(partial(more_than, offset), 120, "the commit of one more")
        assert sum(len(seen) for seen in tagger.seen) == published
    watcher.close()
    assert len(consume_all(kafka.address, names["tagged"])) == published
