"""Dead letters: as received, with the reason, and never too large."""

import hashlib

from hypothesis import given, strategies

from tagbus.stream.bus.process.dead_letters import HEADER_BYTES, KEY_BYTES, DeadLetterTopic
from tagbus.stream.bus.processor import Outgoing, Source
from tagbus.stream.contract.codec import Record, read_dead_letter, read_source
from tagbus.stream.errors import FieldError, Undecodable

TOPIC = DeadLetterTopic("content.dlq", 10_000)
ERROR = Undecodable("decode", (FieldError("value", "'?'", "JSON"),))
# A dead letter has one of each of its own headers: earlier ones do not accumulate.
NAMES = strategies.text(max_size=20).filter(lambda name: not name.startswith(("tagbus.", "__streams.errors.")))
HEADERS = strategies.lists(strategies.tuples(NAMES, strategies.none() | strategies.binary(max_size=6000)), max_size=6)


def letter(record: Record, attempts: int = 1) -> Outgoing:
    (outgoing,) = TOPIC.letter(Source("content", 2, 77, record), ERROR, attempts).outgoing
    return outgoing


@given(
    strategies.none() | strategies.binary(max_size=300),
    strategies.none() | strategies.binary(max_size=9000),
    HEADERS.filter(lambda headers: sum(len(n.encode(errors="replace")) + len(v or b"") for n, v in headers) < 5000),
)
def test_it_is_byte_for_byte_what_came(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    found = letter(Record(key, value, tuple(headers)))
    assert (found.topic, found.key, found.value) == ("content.dlq", key, value)
    assert found.headers[: len(headers)] == tuple(headers)


@given(strategies.binary(max_size=40_000), strategies.binary(max_size=40_000), HEADERS)
def test_it_is_never_larger_than_its_topic_takes(
    key: bytes, value: bytes, headers: list[tuple[str, bytes | None]]
) -> None:
    found = letter(Record(key, value, tuple(headers)))
    assert len(found.key or b"") + len(found.value or b"") <= TOPIC.record_bytes
    assert sum(len(name) + len(content or b"") for name, content in found.headers) <= HEADER_BYTES + 20_000


def test_a_value_that_is_too_large_is_cut_and_its_hash_is_of_all_of_it() -> None:
    value = bytes(range(256)) * 100
    found = letter(Record(b"key", value))
    read = read_dead_letter(list(found.headers))
    assert found.value == value[: 10_000 - 3]
    assert read is not None
    assert (read.value_bytes, read.value_sha256) == (25_600, hashlib.sha256(value).hexdigest())


def test_a_key_that_is_too_large_is_cut_likewise() -> None:
    found = letter(Record(b"k" * 100_000, b"v"))
    headers = dict(found.headers)
    assert (found.key, found.value) == (b"k" * KEY_BYTES, b"v")
    assert headers["tagbus.key.bytes"] == b"100000"
    assert headers["tagbus.key.sha256"] == hashlib.sha256(b"k" * 100_000).hexdigest().encode()


def test_too_many_headers_are_left_out_and_a_header_says_so() -> None:
    found = letter(Record(b"k", b"v", tuple((f"h{i}", b"x" * 1000) for i in range(20))))
    headers = dict(found.headers)
    assert headers["tagbus.headers.dropped"] == b"20 headers of 20050 bytes"
    assert "h1" not in headers


def test_it_names_reason_stage_attempts_and_source() -> None:
    found = letter(Record(b"k", b"v"), attempts=3)
    read, source = read_dead_letter(list(found.headers)), read_source(list(found.headers))
    assert read is not None
    assert source is not None
    assert (read.exception, read.stage, read.attempts) == ("Undecodable", "decode", 3)
    assert read.message == "value: '?' is wrong, expected JSON"
    assert (source.topic, source.partition, source.offset) == ("content", 2, 77)


def test_a_dead_letter_that_comes_again_names_its_newest_source_once() -> None:
    first = letter(Record(b"k", b"v", (("mine", b"1"),)))
    found = letter(Record(first.key, first.value, first.headers))
    names = [name for name, _ in found.headers]
    assert len(names) == len(set(names))
    assert "mine" in names


def test_a_replayed_record_says_how_often_and_where_it_was_first() -> None:
    headers = (("tagbus.replays", b"1"), ("tagbus.replays", b"2"), ("tagbus.replay.source", b"content:0:7"))
    found = letter(Record(b"k", b"v", headers))
    read = read_dead_letter(list(found.headers))
    assert read.replays == 2
    assert dict(found.headers)["tagbus.replay.source"] == b"content:0:7"
    assert [name for name, _ in found.headers].count("tagbus.replays") == 1


def test_what_says_that_headers_are_missing_and_why_it_was_sent_again_stays() -> None:
    headers = (("tagbus.headers.unreadable", b"not UTF-8"), ("tagbus.retag", b"tag t1"), ("tagbus.stage", b"old"))
    found = letter(Record(b"k", b"v", headers)).headers
    assert found[:2] == headers[:2]
    assert [value for name, value in found if name == "tagbus.stage"] == [b"decode"]


@given(strategies.none() | strategies.binary(max_size=30))
def test_a_number_of_replays_that_is_none_counts_as_none(value: bytes | None) -> None:
    read = read_dead_letter(list(letter(Record(b"k", b"v", (("tagbus.replays", value),))).headers))
    assert read.replays == (int(value) if value and value.isdigit() and len(value) < 10 else 0)
