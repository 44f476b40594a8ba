"""An older version never replaces a newer one, on Apache Kafka: within a batch, between batches, after a restart."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

import pytest
from confluent_kafka import Message, Producer

from tagbus.stream.bus.process.stamps import stamp
from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.bus.processor import Batch, Source
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, read_dead_letter
from tests.bus.harness import event, exactly_once, origin, running, settings, until_all_out
from tests.bus.taggers import Huge, Trivial
from tests.conftest import Broker
from tests.support import ANY_TIME, Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
Names = dict[str, str]
VERSIONS: Layout = (2, {"cleanup.policy": "compact"})
SECONDS = 120.0


@pytest.fixture
def names(topics: Make) -> Names:
    """The topics of this test alone."""
    return topics({"content": 2, "tagged": 2, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": VERSIONS})


def send(kafka: Broker, names: Names, *values: bytes | None) -> None:
    """Records of the content `a`, so all of one partition."""
    produce(kafka.address, names["content"], [(b"a", value, []) for value in values])


def texts(messages: list[Message]) -> list[str]:
    """Exception and message of each dead letter."""
    letters = [read_dead_letter([*(message.headers() or [])]) for message in messages]
    return [f"{letter.exception} at {letter.stage}: {letter.message}" for letter in letters]


@contextmanager
def order(given: Settings, partitions: int = 2) -> Iterator[VersionTopic]:
    """The order of a worker that has just been given its partitions."""
    opened = VersionTopic(given)
    opened.assign((given.topics.content, partition) for partition in range(partitions))
    try:
        yield opened
    finally:
        opened.close()


def known(opened: VersionTopic, given: Settings, name: str, partition: int) -> int:
    """What is published of a content: the stamp that keeps version 0 from passing."""
    source = Source(given.topics.content, partition, 0, Record(None, b""))
    claims = opened.open(Batch((given.topics.content, partition), 1, (source,), 0, 0.0))
    return claims.add(0, name, stamp(0, -1))


@pytest.mark.parametrize("size", [1, 100])
def test_an_older_version_is_set_aside_within_a_batch_and_between_batches(
    kafka: Broker, names: Names, size: int
) -> None:
    # Given versions in the wrong order, a tagger that takes time, and batches of all of them or of one each
    send(kafka, names, *(event("a", version=version) for version in (1, 3, 2, 3, 0, 4)))
    given = settings(kafka.address, names, batch={"contents": size})
    with running(given, Trivial(0.05)):
        until_all_out(kafka.address, names, 6)
    exactly_once(kafka.address, names)
    # Then what is published only grows, an equal version passes, and the rest says why
    assert [origin(message)[1] for message in consume_all(kafka.address, names["tagged"])] == [0, 1, 3, 5]
    assert texts(consume_all(kafka.address, names["dead_letters"])) == [
        f"Stale at order: version: {version} is wrong, expected 3 or newer, as published already for content 'a'"
        for version in (2, 0)
    ]


class TestAResultThatIsTooLarge:
    """It is set aside, so its version is never published, and keeps no older one out."""

    @pytest.mark.parametrize("size", [1, 3, 100])
    @pytest.mark.parametrize("refused_by", ["the worker", "the broker"])
    def test_what_is_older_is_published(self, kafka: Broker, topics: Make, size: int, refused_by: str) -> None:
        # Given newer versions whose results are above batch.record_bytes, or above what the topic takes
        names = _with_limit(topics, 50_000 if refused_by == "the broker" else 1_000_000)
        send(kafka, names, *(event("a", version=version) for version in (1, 8, 3, 2, 9, 4)))
        record_bytes = 50_000 if refused_by == "the worker" else 1_000_000
        with _huge(_uncompressed(kafka, names, "exactly_once", contents=size, record_bytes=record_bytes)):
            until_all_out(kafka.address, names, 6)
        # Then what is older than those, and newer than what is published, is published, and nothing is doubled
        exactly_once(kafka.address, names)
        assert [origin(message)[1] for message in consume_all(kafka.address, names["tagged"])] == [0, 2, 5]
        letters = consume_all(kafka.address, names["dead_letters"])
        found = {origin(letter)[1]: text for letter, text in zip(letters, texts(letters), strict=True)}
        big = "Untaggable at publish"
        assert {offset: text.split(":")[0] for offset, text in found.items()} == {1: big, 3: "Stale at order", 4: big}
        assert "expected 3 or newer" in found[3]

    def test_so_it_is_without_transactions(self, kafka: Broker, topics: Make) -> None:
        names = _with_limit(topics, 50_000)
        send(kafka, names, *(event("a", version=version) for version in (1, 8, 3, 2, 9, 4)))
        with _huge(_uncompressed(kafka, names, "at_least_once", contents=3)):
            until_all_out(kafka.address, names, 6)
        # What goes out with a refused record may go out twice.
        assert {origin(message)[1] for message in consume_all(kafka.address, names["tagged"])} == {0, 2, 5}
        assert {origin(letter)[1] for letter in consume_all(kafka.address, names["dead_letters"])} >= {1, 3, 4}

    @pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
    def test_nor_does_it_keep_one_out_after_a_restart(self, kafka: Broker, topics: Make, delivery: str) -> None:
        names = _with_limit(topics, 50_000)
        given = _uncompressed(kafka, names, delivery)
        send(kafka, names, event("a", version=1), event("a", version=8))
        with _huge(given):
            until_all_out(kafka.address, names, 2)
        send(kafka, names, event("a", version=3))
        with _huge(given):
            until_all_out(kafka.address, names, 3)
        assert {origin(message)[1] for message in consume_all(kafka.address, names["tagged"])} == {0, 2}


def _with_limit(topics: Make, size: int) -> Names:
    tagged: Layout = (2, {"max.message.bytes": str(size)})
    return topics(
        {"content": 2, "tagged": tagged, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": VERSIONS}
    )


def _uncompressed(kafka: Broker, names: Names, delivery: str, **batch: object) -> Settings:
    """The broker's limit is on what comes over the wire."""
    changed = {"options": {"compression.type": "none"}, "delivery": delivery}
    return settings(kafka.address, names, kafka=changed, batch=batch)


def _huge(given: Settings) -> AbstractContextManager[object]:
    """A worker whose results of version 8 and above take 60,000 bytes."""
    return running(given, Huge(lambda content: (content.version or 0) >= 8, 60_000))


def test_a_new_owner_knows_what_is_published(kafka: Broker, names: Names) -> None:
    given = settings(kafka.address, names)
    # Given a version, a content by time, a withdrawal and a content with neither
    send(kafka, names, event("a", version=7))
    produce(kafka.address, names["content"], [(b"t", event("t", time="2026-01-31T09:30:00Z"), [])])
    produce(kafka.address, names["content"], [(b"w", None, []), (b"n", event("n"), [])])
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 4)
    # When another worker takes over
    produce(kafka.address, names["content"], [(b"t", event("t", time="2026-01-31T09:29:59Z"), [])])
    produce(kafka.address, names["content"], [(b"w", event("w", time="2020-01-01T00:00:00Z"), [])])
    produce(kafka.address, names["content"], [(b"n", event("n"), [])])
    send(kafka, names, event("a", version=6), event("a", version=7))
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 9)
    # Then what is older than that stays out, what was withdrawn stays withdrawn, and the equal version passes
    exactly_once(kafka.address, names)
    letters = consume_all(kafka.address, names["dead_letters"])
    assert {bytes(letter.key() or b"") for letter in letters} == {b"a", b"t", b"w"}
    assert all(text.startswith("Stale at order: ") for text in texts(letters))
    # And contents with neither version nor time cost nothing
    written = consume_all(kafka.address, names["versions"])
    assert {bytes(message.key() or b"") for message in written} == {b"a", b"t", b"w"}
    fields = {bytes(message.key() or b""): json.loads(message.value() or b"").keys() for message in written}
    assert fields[b"a"] == {"version", "time"}
    assert fields[b"w"] == {"version", "time", "withdrawn"}


class TestWithdrawn:
    """A result comes back after a withdrawal only if the content is newer than what was withdrawn."""

    @pytest.mark.parametrize("size", [1, 100])
    def test_by_version(self, kafka: Broker, names: Names, size: int) -> None:
        # Given version 7, withdrawn twice, and then late and equal versions, and a higher one, in batches of one or all
        send(kafka, names, *(event("a", version=version) for version in (1, 7)), None, None)
        send(kafka, names, *(event("a", version=version) for version in (3, 7, 8, 7)))
        with running(settings(kafka.address, names, batch={"contents": size}), Trivial(0.05)):
            until_all_out(kafka.address, names, 8)
        exactly_once(kafka.address, names)
        found = consume_all(kafka.address, names["tagged"])
        assert [(origin(one)[1], one.value() is None) for one in found] == [
            (0, False),
            (1, False),
            (2, True),
            (3, True),
            (6, False),
        ]
        assert texts(consume_all(kafka.address, names["dead_letters"])) == [
            "Stale at order: version: 3 is wrong, expected newer than 7: content 'a' was withdrawn",
            "Stale at order: version: 7 is wrong, expected newer than 7: content 'a' was withdrawn",
            "Stale at order: version: 7 is wrong, expected 8 or newer, as published already for content 'a'",
        ]

    @pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
    def test_a_new_owner_knows_it(self, kafka: Broker, names: Names, delivery: str) -> None:
        given = settings(kafka.address, names, kafka={"delivery": delivery})
        send(kafka, names, event("a", version=7), None)
        with running(given, Trivial()):
            until_all_out(kafka.address, names, 2)
        send(kafka, names, event("a", version=3), event("a", version=7), event("a", version=8))
        with running(given, Trivial()):
            until_all_out(kafka.address, names, 5)
        tagged = consume_all(kafka.address, names["tagged"])
        assert [(origin(one)[1], one.value() is None) for one in tagged] == [(0, False), (1, True), (4, False)]
        written = [json.loads(one.value() or b"") for one in consume_all(kafka.address, names["versions"])]
        assert [one["version"] for one in written] == [7, 7, 8]
        assert [one.get("withdrawn", False) for one in written] == [False, True, False]

    def test_by_time_where_there_is_no_version(self, kafka: Broker, names: Names) -> None:
        # Given a content whose own time is after that of the record that withdraws it
        future = "2199-01-01T00:00:00Z"
        send(kafka, names, event("a", time=future), None)
        send(kafka, names, *(event("a", time=own) for own in ("2198-01-01T00:00:00Z", future, "2199-01-01T00:00:01Z")))
        with running(settings(kafka.address, names), Trivial()):
            until_all_out(kafka.address, names, 5)
        exactly_once(kafka.address, names)
        assert [origin(one)[1] for one in consume_all(kafka.address, names["tagged"])] == [0, 1, 4]

    def test_what_says_neither_version_nor_time_passes(self, kafka: Broker, names: Names) -> None:
        send(kafka, names, event("a", version=7), None, event("a"), event("a", version=3))
        with running(settings(kafka.address, names), Trivial()):
            until_all_out(kafka.address, names, 4)
        assert [origin(one)[1] for one in consume_all(kafka.address, names["tagged"])] == [0, 1, 2]

    @pytest.mark.parametrize("factor", [1, 1_000, 1_000_000], ids=["milliseconds", "microseconds", "nanoseconds"])
    def test_a_time_out_of_range_makes_nothing_stale(
        self, kafka: Broker, topics: Make, factor: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a withdrawal whose record has a time in microseconds, or one 100 years ahead
        names = topics(
            {
                "content": (1, ANY_TIME),
                "tagged": 1,
                "dead_letters": 1,
                "exemplars": 1,
                "feedback": 1,
                "versions": VERSIONS,
            }
        )
        ahead = int((time.time() + 100 * 366 * 86_400) * 1000) * factor
        send(kafka, names, event("a", version=7))
        produce(kafka.address, names["content"], [(b"a", None, []), (b"b", None, [])], milliseconds=ahead)
        with running(settings(kafka.address, names), Trivial()):
            until_all_out(kafka.address, names, 3)
            # Then a later content with a time is published, and an old version is stale all the same
            now = datetime.now(UTC).isoformat()
            produce(kafka.address, names["content"], [(b"b", event("b", time=now), [])])
            send(kafka, names, event("a", version=3))
            until_all_out(kafka.address, names, 5)
        exactly_once(kafka.address, names)
        assert [origin(one)[1] for one in consume_all(kafka.address, names["tagged"])] == [0, 1, 2, 3]
        assert "newer than 7" in texts(consume_all(kafka.address, names["dead_letters"]))[0]
        # And the log names the record
        said = (
            f"topic {names['content']}: record 0:1 has the timestamp {ahead}, expected milliseconds from 1970 to 9999"
        )
        assert (said in caplog.text) == (factor > 1)

    def test_the_time_that_an_older_worker_wrote_makes_nothing_stale(self, kafka: Broker, names: Names) -> None:
        # Given what a withdrawal in microseconds left on the topic before
        wrote = b'{"version":null,"time":422212465065983}'
        for partition in (0, 1):
            produce(kafka.address, names["versions"], [(b"a", wrote, [])], partition)
        send(kafka, names, event("a", time="2026-01-31T09:30:00Z"))
        with running(settings(kafka.address, names), Trivial()):
            until_all_out(kafka.address, names, 1)
        assert len(consume_all(kafka.address, names["tagged"])) == 1


def test_a_version_stands_in_the_partition_of_its_content(kafka: Broker, names: Names) -> None:
    # Given contents that were produced with another partitioner
    for partition in (0, 1):
        produce(kafka.address, names["content"], [(b"x", event("x", version=1), [])], partition)
    with running(settings(kafka.address, names), Trivial()):
        until_all_out(kafka.address, names, 2)
    assert sorted(message.partition() or 0 for message in consume_all(kafka.address, names["versions"])) == [0, 1]


@pytest.mark.parametrize(("end", "expected"), [("commit_transaction", stamp(8, None)), ("abort_transaction", 0)])
def test_what_the_last_owner_has_not_committed_yet_is_waited_for(
    kafka: Broker, names: Names, end: str, expected: int
) -> None:
    given = settings(kafka.address, names)
    place = (names["content"], 0)
    produce(kafka.address, names["versions"], [(b"b", b'{"version":1}', [])], 0)
    # Given a transaction of the last owner that is still open
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": names["versions"]})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(names["versions"], b'{"version":8}', b"a", 0)
    producer.flush(10)
    with order(given) as opened:
        # Then the other partition is ready, and this one is not
        wait_until(lambda: opened.ready((names["content"], 1)), SECONDS, "a partition that is ready")
        wait_until(lambda: len(opened._states.partitions[place].published) == 1, SECONDS, "what is committed")
        assert not opened.ready(place)
        # Until the transaction ends
        getattr(producer, end)(10)
        wait_until(lambda: opened.ready(place), SECONDS, "the other partition")
        assert known(opened, given, "a", 0) == expected
        assert known(opened, given, "b", 0) == stamp(1, None)


def test_a_partition_that_comes_back_is_read_again(kafka: Broker, names: Names) -> None:
    given = settings(kafka.address, names)
    place = (names["content"], 0)
    with order(given) as opened:
        wait_until(lambda: opened.ready(place), SECONDS, "the first assignment")
        opened.revoke([place])
        assert not opened.ready(place)
        # Given another owner that publishes meanwhile
        produce(kafka.address, names["versions"], [(b"a", b'{"version":3}', []), (b"x", b"no JSON", [])], 0)
        opened.assign([place])
        wait_until(lambda: opened.ready(place), SECONDS, "the second assignment")
        assert known(opened, given, "a", 0) == stamp(3, None)


def test_the_ids_that_are_known_are_bounded(kafka: Broker, names: Names) -> None:
    records = [(f"c{number}".encode(), b'{"version":2}', list[tuple[str, bytes]]()) for number in range(500)]
    produce(kafka.address, names["versions"], records, 0)
    given = settings(kafka.address, names, triage={"versions": 100})
    place = (names["content"], 0)
    with order(given) as opened:
        wait_until(lambda: opened.ready(place), SECONDS, "the partition")
        assert len(opened._states.partitions[place].published) <= 50
        # The oldest are forgotten, the newest are known.
        assert known(opened, given, "c499", 0) == stamp(2, None)
        assert known(opened, given, "c0", 0) == 0


def test_without_the_topic_its_partitions_wait_and_say_what_to_do(kafka: Broker, names: Names) -> None:
    given = settings(kafka.address, {**names, "versions": "there-is-none"})
    with order(given) as opened:
        words = "topic there-is-none has no partition 0, `tagbus topics create --mend` adds it"
        wait_until(lambda: words in opened.problem(), SECONDS, "a word about it")
        assert not opened.ready((names["content"], 0))


def test_none_are_known_where_the_setting_says_so(kafka: Broker, names: Names) -> None:
    given = settings(kafka.address, names, triage={"versions": 0})
    send(kafka, names, event("a", version=2), event("a", version=1))
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 2)
    assert len(consume_all(kafka.address, names["tagged"])) == 2
    assert consume_all(kafka.address, names["versions"]) == []
