"""`tagbus views` on Apache Kafka: under all faults their answers equal the counts of a plain consumer."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tagbus.stream.config import Settings
from tagbus.stream.errors import UserError
from tagbus.stream.views.topics import require_topics
from tests.bus.harness import settings
from tests.conftest import Broker
from tests.kafka.recount import recount
from tests.kafka.views_log import (
    COMPACT,
    Replica,
    Tagger,
    layouts,
    path_of,
    producer,
    recommended,
    replicas,
    result,
    wrong,
)
from tests.support import Layout, Record, consume_all, create_topics, get, produce, unique, wait_until

pytestmark = pytest.mark.kafka

SECONDS = 120
CONTENTS = 60
IDS = [f"c/{number} é" for number in range(CONTENTS)]


def views(kafka: Broker, partitions: int) -> Settings:
    """Topics of a test's own, small batches."""
    group, tagged = unique("views"), unique("tagged")
    create_topics(kafka.address, {tagged: partitions, **layouts(partitions, group)})
    return settings(kafka.address, {"tagged": tagged}, views={"group": group, "batch": 20})


def settled(given: Settings, asked: list[Replica]) -> None:
    """Wait until every replica answers every key as it is counted again."""
    expected = recount(given.kafka.brokers, given.topics.tagged)

    def right() -> bool:
        found.clear()
        found.extend(wrong(asked, expected, IDS))
        return not found

    found = list[str]()
    try:
        wait_until(right, SECONDS, "views as counted again")
    except AssertionError as error:
        logs = "\n".join(one.process.tail() for one in asked if one.process is not None)
        raise AssertionError(f"{error}: {len(found)} wrong, {found[:5]}\n{logs}") from None


def test_killed_moved_and_without_their_disk_they_are_what_a_recount_gives(kafka: Broker, tmp_path: Path) -> None:
    given = views(kafka, partitions=3)
    tagger = Tagger(kafka.address, given.topics.tagged, CONTENTS)
    with replicas(given, tmp_path, 2) as (one, two):
        one.start()
        two.start().until_ready()
        one.until_ready()
        for killed in (one, two):
            before = one.applied() + two.applied()
            tagger.write(150)
            wait_until(lambda seen=before: one.applied() + two.applied() > seen, SECONDS, "work")  # type: ignore[misc]
            killed.kill()
            tagger.write(50)
            killed.start().until_ready()
        settled(given, [one, two])
        # Its partitions move to the other, and come back to one that has lost its disk.
        one.stop()
        tagger.write(50)
        settled(given, [two])
        shutil.rmtree(one.folder)
        one.start().until_ready()
        settled(given, [one, two])
        one.stop()
        two.stop()


@pytest.fixture
def served(kafka: Broker, tmp_path: Path) -> tuple[Settings, list[Replica]]:  # type: ignore[misc]
    """Two replicas that share one partition: one of them has none."""
    given = views(kafka, partitions=1)
    with replicas(given, tmp_path, 2) as made:
        for one in made:
            one.start().until_ready()
        yield given, made


def test_a_replica_without_partitions_is_ready_and_answers_and_recommenders_work(
    kafka: Broker, served: tuple[Settings, list[Replica]]
) -> None:
    given, (one, two) = served
    shelf = {"a": {"bees": 0.9, "city": 0.5}, "b": {"bees": 0.8}, "c": {"city": 0.7}, "d": {"cars": 0.6}}
    # What is no result comes first: the others are read all the same. One has the wire format of a schema registry.
    records: list[Record] = [(b"x", b"{", []), (None, b"", []), (b"\xff", b"\xff", []), (b"x", b"{}", [])]
    records += [(b"tagbus-helm-test-1", result("tagbus-helm-test-1", {"bees": 0.9}), [])]
    records += [(key.encode(), b"\0\0\0\0\7" * (key == "b") + result(key, tags), []) for key, tags in shelf.items()]
    produce(kafka.address, given.topics.tagged, records)
    for asked in (one, two):
        wait_until(lambda to=asked: to.get("/tags/cars")[0] == 200, SECONDS, "the last result")  # type: ignore[misc]
        assert asked.get("/contents/a")[1]["tags"] == [
            {"id": "bees", "name": "BEES", "confidence": 0.9},
            {"id": "city", "name": "CITY", "confidence": 0.5},
        ]
        assert asked.get("/tags/bees")[1] == {"id": "bees", "name": "BEES", "contents": 2}
        assert [item["id"] for item in asked.pages("/tags/bees/contents?order=confidence")] == ["a", "b"]
        assert asked.get(path_of("contents", "tagbus-helm-test-1"))[0] == 404
        assert asked.get("/tags/none") == (404, {"error": "id: 'none' is not known here"})
        assert asked.get("/tags/bees/contents?limit=x")[1] == {"error": "limit: 'x' is wrong, expected a whole number"}
        assert asked.get("/openapi.json")[1]["openapi"] == "3.1.0"
    by_topic = recommended("from_topic.py", kafka.address, given.topics.tagged, "a")
    by_views = recommended("from_views.py", f"http://127.0.0.1:{two.port}", "a")
    assert [one["id"] for one in by_topic] == ["b", "c"]
    assert by_views == by_topic


def test_a_withdrawn_content_leaves_no_row(kafka: Broker, tmp_path: Path) -> None:
    given = views(kafka, partitions=1)
    with replicas(given, tmp_path, 1) as (one,):
        one.start().until_ready()
        send = lambda *records: produce(kafka.address, given.topics.tagged, [(k, v, []) for k, v in records])  # noqa: E731
        send((b"a", result("a", {"bees": 0.9})))
        wait_until(lambda: one.get("/tags/bees")[1].get("contents") == 1, SECONDS, "the result")
        send((b"a", None))
        wait_until(lambda: one.get("/tags/bees")[1].get("contents") == 0, SECONDS, "the withdrawal")
        assert one.get("/contents/a")[0] == 404
        changelog = given.views.content_changelog
        last = consume_all(
            kafka.address, changelog, until=lambda found: any(m.key() == b"a" and m.value() is None for m in found)
        )
        assert [m.value() for m in last if m.key() == b"a"][-1] is None


def lag(replica: Replica, name: str) -> float:
    """A gauge of the lag of the contents."""
    assert replica.process is not None
    _, text = get(replica.process.port, "/metrics")
    found = re.search(rf'^tagbus_views_lag_{name}{{view="contents"}} ([0-9.e+-]+)$', text, re.MULTILINE)
    return -1 if found is None else float(found[1])


def test_lag_is_what_is_not_in_the_rows_and_a_second_replica_at_the_same_address_is_refused(
    kafka: Broker, tmp_path: Path
) -> None:
    given = views(kafka, partitions=2)
    with replicas(given, tmp_path, 2, {"TAGBUS_VIEWS__ADVERTISED": "http://views:8790"}) as (one, two):
        one.start().until_ready()
        # Transactions leave a marker behind the last record, and aborted records: neither waits.
        Tagger(kafka.address, given.topics.tagged, CONTENTS).write(50)
        wait_until(lambda: one.applied() > 0 and lag(one, "records") == 0, SECONDS, "no lag")
        assert lag(one, "seconds") == 0
        # An open transaction holds its records back.
        late = producer(kafka.address)
        late.begin_transaction()
        late.produce(given.topics.tagged, result("late", {"bees": 0.9}), b"late")
        late.flush(60)
        wait_until(lambda: lag(one, "records") == 1 and lag(one, "seconds") > 0.5, SECONDS, "a record that waits")
        late.commit_transaction(60)
        wait_until(lambda: lag(one, "records") == 0, SECONDS, "no lag")
        two.start()
        assert two.process is not None
        assert two.process.process.wait(SECONDS) == 2
        assert "views.advertised: another replica of" in two.process.tail()
        assert "advertises http://views:8790 too; give each" in two.process.tail()
        one.stop()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "does not exist; `tagbus topics create --views` creates it"),
        ({"-changes": 3, "-contents-changelog": (3, COMPACT), "-tags-changelog": (2, COMPACT)}, "2 partitions and"),
        ({"-changes": 3, "-contents-changelog": 3, "-tags-changelog": (3, COMPACT)}, "cleanup.policy is delete"),
    ],
)
def test_topics_that_do_not_fit_are_named(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], own: Mapping[str, Layout], words: str
) -> None:
    names, group = topics({"tagged": 3}), unique("views")
    if own:
        create_topics(kafka.address, {f"{group}{rest}": layout for rest, layout in own.items()})
    with pytest.raises(UserError, match=words) as raised:
        require_topics(settings(kafka.address, names, views={"group": group}))
    assert group in str(raised.value)
