"""`tagbus replay` on Apache Kafka: which dead letters are sent back, and that they are sent unchanged."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Message, Producer
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE, DeadLetterTopic
from tagbus.stream.bus.processor import Source
from tagbus.stream.cli.records.dead_letter_selection import OWN, REPLAYS, origin, originals
from tagbus.stream.cli.records.replay import Spool
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Origin, Record, encode_record, source_headers
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import FieldError, Poison, Skipped, Stale, Undecodable, Untaggable
from tests.cli.harness import Answer, Cli
from tests.cli.records.test_publish import settings as settings_of
from tests.conftest import Broker
from tests.support import ANY_TIME, MICROSECONDS, Layout, consume_all

Headers = tuple[tuple[str, bytes | None], ...]
Make = Callable[[Mapping[str, Layout]], dict[str, str]]

PARTITIONS = 3


def error(kind: type[Poison], stage: str = "tag", field: str = "content") -> Poison:
    return kind(stage, (FieldError(field, "something", "something else"),))


@dataclass
class Bus:
    """Topics of a test's own, and how to put on them what a worker would have."""

    address: str
    names: dict[str, str]
    tagbus: Cli
    producer: Producer
    sent: dict[int, int] = field(default_factory=dict)
    # Time of the newest record. Each gets a later one than the last: across partitions the time gives the order.
    milliseconds: int = 0

    def put(self, word: str, record: Record, partition: int = -1) -> None:
        """One record, confirmed."""
        headers = list(record.headers)
        self.milliseconds = max(self.milliseconds + 1, time.time_ns() // 1_000_000)
        self.producer.produce(
            self.names[word], record.value, record.key, partition, headers=headers, timestamp=self.milliseconds
        )
        assert self.producer.flush(30) == 0

    def content(self, record: Record, partition: int = 0) -> Source:
        """An event comes in."""
        self.put("content", record, partition)
        offset = self.sent.get(partition, 0)
        self.sent[partition] = offset + 1
        return Source(self.names["content"], partition, offset, record)

    def aside(self, record: Record, reason: Poison, partition: int = 0) -> Source:
        """An event comes in and is set aside."""
        source = self.content(record, partition)
        self.letter(source, reason)
        return source

    def letter(self, source: Source, reason: Poison, **batch: int) -> None:
        """What a worker writes for an event that it sets aside."""
        given = Settings.model_validate({"topics": self.names, "batch": batch})
        (out,) = DeadLetterTopic(given.topics.dead_letters, given.batch.record_bytes).letter(source, reason).outgoing
        self.put("dead_letters", Record(out.key, out.value, out.headers))

    def result(self, name: str, source: Source) -> None:
        """What a worker writes for an event that it has tagged."""
        headers = source_headers(source.topic, source.partition, source.offset)
        self.put("tagged", Record(name.encode(), b"{}", tuple(headers)))

    def replay(self, *arguments: str) -> Answer:
        return self.tagbus("replay", *arguments, settings=settings_of_(self))

    def back(self) -> list[Message]:
        """What stands on `content` beyond what the test put there."""
        found = consume_all(self.address, self.names["content"])
        return [one for one in found if (one.offset() or 0) >= self.sent.get(one.partition() or 0, 0)]


def settings_of_(bus: Bus) -> dict[str, str]:
    return settings_of(Broker(bus.address, ""), bus.names)


@pytest.fixture
def bus(kafka: Broker, topics: Make, tagbus: Cli) -> Bus:
    names = topics({"content": PARTITIONS, "tagged": 2, "dead_letters": 2})
    return Bus(kafka.address, names, tagbus, Producer({"bootstrap.servers": kafka.address, "linger.ms": 0}))


def record(name: str, text: str = "Bees", headers: Headers = ()) -> Record:
    made = encode_record(Content(id=name, text=text))
    return Record(made.key, made.value, headers)


def source_of(bus: Bus, partition: int, offset: int) -> bytes:
    return f"{bus.names['content']}:{partition}:{offset}".encode()


def test_a_dry_run_shows_them_and_sends_nothing(bus: Bus) -> None:
    bus.aside(record("a"), error(Untaggable))
    bus.aside(Record(b"b", b"\xff{\x1b[31m"), error(Undecodable, "decode", "value\x1b[31m"), 2)
    answer = bus.replay()
    assert answer.code == 0
    assert answer.err == "to send back with --send: 2\n"
    assert f"{bus.names['content']}:2:0" in answer.out.replace("\n", "")
    for words in ("Untaggable at tag", "Undecodable", "replays"):
        assert words in answer.out
    assert "\x1b" not in answer.out
    assert bus.back() == []


def test_a_record_time_in_microseconds_counts_as_none(kafka: Broker, topics: Make, tagbus: Cli) -> None:
    # Given a letter, its result and an event whose records have such a time
    names = topics({"content": (1, ANY_TIME), "tagged": (1, ANY_TIME), "dead_letters": (1, ANY_TIME)})
    bus = Bus(kafka.address, names, tagbus, Producer({"bootstrap.servers": kafka.address, "linger.ms": 0}))
    bus.milliseconds = MICROSECONDS
    bus.aside(record("a"), error(Untaggable))
    bus.result("b", bus.aside(record("b"), error(Untaggable)))
    # Then it is selected unless a time is asked for
    assert bus.replay().err.splitlines()[-1] == "to send back with --send: 1; left out: 1 published since"
    assert bus.replay("--since", "1h").err.splitlines()[-1].startswith("to send back with --send: 0")


def test_they_go_back_byte_for_byte_to_their_partition(bus: Bus) -> None:
    # Given letters whose key and value are no text, and whose headers stand twice or have no value
    headers = (("trace", b"\x00\xff"), ("trace", None), ("ce_id", b"1"))
    odd = Record(b"\xfe key", b"\xff\x00{", headers)
    bus.content(record("before"), 1)
    bus.aside(odd, error(Undecodable, "decode"), 1)
    bus.aside(Record(None, b"[]"), error(Undecodable, "decode"), 2)
    bus.aside(Record(b"null", None, headers), error(Untaggable), 0)
    # When they are sent back
    answer = bus.replay("--send")
    # Then each is what it was, in the partition that it came from, and says where it was first
    assert answer.err == "sent back: 3\n"
    back = {message.partition(): message for message in bus.back()}
    for partition, offset, came in ((0, 0, Record(b"null", None, headers)), (1, 1, odd), (2, 0, Record(None, b"[]"))):
        message = back[partition]
        assert (message.key(), message.value()) == (came.key, came.value)
        ours = [(REPLAYS, b"1"), (REPLAY_SOURCE, source_of(bus, partition, offset))]
        assert message.headers() == [*came.headers, *ours]


def test_a_second_time_sends_nothing_twice(bus: Bus) -> None:
    bus.aside(record("a"), error(Untaggable))
    bus.aside(record("b"), error(Untaggable))
    assert bus.replay("--send", "--limit", "1").err == "sent back: 1; left out: 1 beyond --limit\n"
    assert bus.replay("--send").err == "sent back: 1; left out: 1 sent back already\n"
    assert bus.replay("--send").err == "sent back: 0; left out: 2 sent back already\n"
    assert [message.key() for message in bus.back()] == [b"a", b"b"]


def test_what_was_published_since_is_left_out(bus: Bus) -> None:
    # Given a content whose later version has a result, one whose earlier version has, and one that was withdrawn
    bus.aside(record("mended"), error(Untaggable))
    bus.result("mended", bus.content(record("mended", "Ants")))
    bus.result("broken", bus.content(record("broken"), 1))
    bus.aside(record("broken", "Wasps"), error(Untaggable), 1)
    bus.aside(record("gone"), error(Untaggable))
    withdrawn = bus.content(Record(b"gone", None))
    bus.put("tagged", Record(b"gone", None, tuple(source_headers(withdrawn.topic, 0, withdrawn.offset))))
    # And one without a key, and one whose later version came in another partition
    bus.aside(Record(None, record("keyless").value), error(Untaggable))
    bus.result("keyless", bus.content(record("keyless", "Ants")))
    bus.aside(record("moved"), error(Untaggable))
    bus.result("moved", bus.content(record("moved", "Ants"), 2))
    # And one that was tagged after all, from the very place
    bus.result("again", bus.aside(Record(b"again", b"{"), error(Untaggable)))
    answer = bus.replay("--send")
    assert answer.err == "sent back: 1; left out: 5 published since\n"
    assert [message.key() for message in bus.back()] == [b"broken"]


def test_one_that_failed_again_goes_back_once_more(bus: Bus) -> None:
    # Given an event that was sent back and failed again
    bus.aside(record("a"), error(Untaggable))
    bus.replay("--send")
    headers = ((REPLAYS, b"1"), (REPLAY_SOURCE, source_of(bus, 0, 0)))
    bus.sent[0] += 1
    bus.letter(Source(bus.names["content"], 0, 1, record("a", headers=headers)), error(Skipped, "operator"))
    # Then its newest letter alone counts, for the reason that it has now
    assert bus.replay("--reason", "Untaggable").err.startswith("to send back with --send: 0")
    assert bus.replay("--send").err == "sent back: 1\n"
    (message,) = bus.back()
    assert message.headers() == [(REPLAYS, b"2"), (REPLAY_SOURCE, source_of(bus, 0, 0))]


def test_a_decision_goes_back_to_its_topic(kafka: Broker, topics: Make, tagbus: Cli) -> None:
    """And to no other: letters of contents stay where they are, and there are no results to look for."""
    names = topics({"content": 1, "tagged": 1, "dead_letters": 1, "feedback": 2, "feedback_dead_letters": 1})
    bus = Bus(kafka.address, names, tagbus, Producer({"bootstrap.servers": kafka.address, "linger.ms": 0}))
    bus.aside(record("a"), error(Untaggable))
    odd = Record(b"article-17", b"{", (("trace", b"\x00"),))
    bus.put("feedback", odd, 1)
    aside = DeadLetterTopic(names["feedback_dead_letters"], 1_000)
    source = Source(names["feedback"], 1, 0, odd)
    (out,) = aside.letter(source, error(Undecodable, "decode", "value")).outgoing
    bus.put("feedback_dead_letters", Record(out.key, out.value, out.headers))

    assert bus.replay("feedback.dlq").err == "to send back with --send: 1\n"
    assert bus.replay("feedback.dlq", "--send").err == "sent back: 1\n"
    assert bus.replay("feedback.dlq", "--send").err == "sent back: 0; left out: 1 sent back already\n"

    came, back = consume_all(kafka.address, names["feedback"])
    assert (back.partition(), back.key(), back.value()) == (1, came.key(), came.value())
    assert back.headers() == [*odd.headers, (REPLAYS, b"1"), (REPLAY_SOURCE, f"{names['feedback']}:1:0".encode())]
    assert bus.back() == []


def test_the_order_of_a_partition_is_kept(bus: Bus) -> None:
    # Given letters in another order than their events, on several partitions of the dead-letter topic
    sources = [bus.content(record(f"{number}"), number % 2) for number in range(12)]
    for source in reversed(sources):
        bus.letter(source, error(Untaggable))
    bus.replay("--send")
    for partition in (0, 1):
        keys = [message.key() for message in bus.back() if message.partition() == partition]
        assert keys == [f"{number}".encode() for number in range(partition, 12, 2)]


def test_what_cannot_go_back_is_left_out_and_counted(bus: Bus) -> None:
    bus.aside(record("stale"), error(Stale, "order"))
    long = bus.content(record("long", "x" * 20_000))
    bus.letter(long, error(Untaggable), record_bytes=10_000)
    bus.aside(record("many", headers=(("h", b"x" * 20_000),)), error(Untaggable))
    bus.aside(Record(b"k" * 9_000, b"{"), error(Untaggable))
    bus.letter(Source("elsewhere", 0, 0, record("other")), error(Untaggable))
    bus.letter(Source(bus.names["content"], PARTITIONS, 0, record("far")), error(Untaggable))
    bus.put("dead_letters", Record(b"?", b"?"))
    answer = bus.replay("--send")
    assert bus.back() == []
    said, left_out = answer.err.rstrip().split("; left out: ")
    assert said == "sent back: 0"
    assert set(left_out.split(", ")) == {
        "3 cut",
        "1 stale",
        "1 of another topic",
        "1 of a deleted partition",
        "1 not from tagbus",
    }


def test_stale_ones_go_back_when_they_are_named(bus: Bus) -> None:
    bus.aside(record("stale"), error(Stale, "order"))
    bus.aside(record("other"), error(Untaggable))
    assert bus.replay("--send", "--reason", "Stale").err == "sent back: 1; left out: 1 not asked for\n"
    assert [message.key() for message in bus.back()] == [b"stale"]


def test_filters(bus: Bus) -> None:
    bus.aside(record("a"), error(Untaggable, field="title"))
    bus.aside(record("b"), error(Untaggable, field="title"))
    bus.aside(record("c"), error(Undecodable, "decode"))
    for arguments, count in {
        "--reason Undecodable": 1,
        "--reason decode": 1,
        "--reason Title": 2,
        "--reason unheard": 0,
        "--since 1h": 3,
        "--until 1h": 0,
        "--since 2020-01-31T09:30:00Z --until 2099-01-31T09:30:00+02:00": 3,
        "--since 2099-01-31T09:30:00Z": 0,
        "--limit 2": 2,
        "--reason title --limit 1": 1,
    }.items():
        assert bus.replay(*arguments.split()).err.startswith(f"to send back with --send: {count}"), arguments


@pytest.mark.parametrize(
    "moment", ["yesterday", "2h30m", "2026-01-31", "2026-01-31T09:30:00", "-1h", "9999999999d", ""]
)
def test_a_moment_that_is_none_is_one_line(tagbus: Cli, moment: str) -> None:
    answer = tagbus("replay", "--since", moment)
    assert answer.code == 2
    assert "--since" in answer.one_line()
    assert "expected an RFC 3339 time with its offset, or how long ago: 90s, 15m, 2h, 7d" in answer.one_line()


def test_a_topic_that_is_not_there_is_the_users_mistake(kafka: Broker, tagbus: Cli) -> None:
    answer = tagbus("replay", settings=settings_of(kafka))
    assert answer.code == 2
    assert answer.one_line().endswith("does not exist; `tagbus topics create` creates it")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: not name.startswith(("tagbus.", "__streams."))
)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=20)), max_size=5).map(tuple)
RECORDS = st.builds(Record, st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=50), HEADERS)


@given(RECORDS)
def test_a_letter_keeps_what_the_event_came_with(event: Record) -> None:
    source = Source("content", 0, 7, event)
    (out,) = DeadLetterTopic("content.dlq", 1_000_000).letter(source, error(Untaggable)).outgoing
    letter = Record(out.key, out.value, out.headers)
    assert (letter.key, letter.value, originals(letter)) == (event.key, event.value, event.headers)
    assert {name for name, _ in letter.headers} - {name for name, _ in event.headers} <= OWN


@given(st.permutations(range(6)), st.lists(RECORDS, min_size=6, max_size=6))
def test_a_spool_gives_every_record_by_rank(ranks: list[int], records: list[Record]) -> None:
    with Spool() as spool:
        for rank in ranks:
            spool.put(rank, records[rank])
        assert list(spool.ranked()) == list(enumerate(records))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"content:3:41", Origin("content", 3, 41)),
        (b"a:b:3:41", Origin("a:b", 3, 41)),
        (b"content:3", None),
        (b"content:-3:41", None),
        (b"content:3:4 1", None),
        (b"\xff:3:" + b"9" * 5000, None),
        (b"", None),
    ],
)
def test_where_a_header_says_that_it_came_first(raw: bytes, expected: Origin | None) -> None:
    assert origin(raw) == expected
