"""What is kept of results is bounded in number and in bytes, whatever comes."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given, strategies

from tagbus.stream.bus.flight import Kept, Outgoing, Verdict
from tagbus.stream.bus.results import Results, committed
from tagbus.stream.contract.events import Content, Versions
from tests.bus.harness import event, running, settings
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, wait_until

VERSIONS = Versions(release="r", calibration="none", taxonomy={"0": 1})


def content(name: str) -> Content:
    return Content(id=name, text="Some text.")


def keep(results: Results, name: str, size: int) -> Kept:
    kept = results.come(content(name), 1, VERSIONS)
    outgoing = (Outgoing("tagged", name.encode(), b"x" * size, ()),)
    results.keep(name, kept, VERSIONS, outgoing)
    committed([Verdict("tagged", outgoing, kept=kept)])
    return kept


def bytes_of(results: Results, names: set[str]) -> int:
    found = [kept for name in names if (kept := results._kept.get(name)) is not None]
    return sum(len(one.value or b"") for kept in found for one in kept.outgoing)


@given(strategies.lists(strategies.tuples(strategies.sampled_from("abcdefgh"), strategies.integers(0, 40))))
def test_it_never_keeps_more_than_its_bounds(steps: list[tuple[str, int]]) -> None:
    results = Results(6, 100)
    for name, size in steps:
        keep(results, name, size)
        assert len(results) <= 6
        assert bytes_of(results, set("abcdefgh")) <= 100 + 40


def test_what_is_used_stays() -> None:
    results = Results(10)
    first = keep(results, "used", 1)
    for offset in range(1, 50):
        keep(results, f"c{offset}", 1)
        assert results.come(content("used"), 1, VERSIONS) is first


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
