"""What is kept of results is bounded in number and in bytes, whatever comes."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given, strategies

from tagbus.stream.bus.flight import Batch, Flight, Outgoing, Source, Verdict
from tagbus.stream.bus.results import Entry, Results
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Content, Versions
from tests.bus.harness import event, running, settings
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, wait_until

VERSIONS = Versions(release="r", calibration="none", taxonomy={"0": 1})


def content(name: str) -> Content:
    return Content(id=name, text="Some text.")


def keep(results: Results, name: str, offset: int, size: int) -> Entry:
    entry = results.come(name.encode(), content(name), 1, offset, VERSIONS)
    outgoing = (Outgoing("tagged", name.encode(), b"x" * size, ()),)
    results.keep(name.encode(), entry, VERSIONS, outgoing)
    source = Source("content", 0, offset, Record(None, b""))
    results.committed(Flight(Batch(("content", 0), 1, (source,), 0, 0.0), 0.0, [Verdict("tagged", outgoing)]))
    return entry


def bytes_of(results: Results, names: set[str]) -> int:
    kept = [entry for name in names if (entry := results._entries.get(name.encode())) is not None]
    return sum(len(one.value or b"") for entry in kept for one in entry.outgoing)


@given(strategies.lists(strategies.tuples(strategies.sampled_from("abcdefgh"), strategies.integers(0, 40))))
def test_it_never_keeps_more_than_its_bounds(steps: list[tuple[str, int]]) -> None:
    results = Results(6, 100)
    for offset, (name, size) in enumerate(steps):
        keep(results, name, offset, size)
        assert len(results) <= 6
        assert bytes_of(results, set("abcdefgh")) <= 100 + 40


def test_what_is_used_stays() -> None:
    results = Results(10)
    first = keep(results, "used", 0, 1)
    for offset in range(1, 50):
        keep(results, f"c{offset}", offset, 1)
        assert results.come(b"used", content("used"), 1, 1000 + offset, VERSIONS) is first


@pytest.mark.kafka
@pytest.mark.parametrize(("duplicates", "published"), [("publish", 3), ("skip", 1)])
def test_a_duplicate_is_committed_whether_it_is_published_or_not(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], duplicates: str, published: int
) -> None:
    names = topics({"content": 1, "tagged": 1, "dead_letters": 1, "exemplars": 1, "versions": 1})
    chosen, tagger = settings(kafka.address, names, triage={"duplicates": duplicates}), Trivial()
    watcher = Consumer({"bootstrap.servers": kafka.address, "group.id": chosen.kafka.group})

    def more_than(offset: int) -> bool:
        (place,) = watcher.committed([TopicPartition(names["content"], 0)], 10)
        return place.offset > offset

    with running(chosen, tagger) as run:
        run.until_ready()
        for offset in range(3):
            produce(kafka.address, names["content"], [(b"a", event("a", version=1), [])])
            wait_until(partial(more_than, offset), 30, "the commit of one more")
        assert sum(len(seen) for seen in tagger.seen) == 1
    watcher.close()
    assert len(consume_all(kafka.address, names["tagged"])) == published
