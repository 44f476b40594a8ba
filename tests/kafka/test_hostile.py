"""Hostile inputs on Apache Kafka: each ends on `tagged` or the dead-letter topic within 10 s, and nothing crashes."""

import hashlib
import json
from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import Producer

from tagbus.stream.contract.fields import TEXT_CHARS
from tests.bus.harness import event, exactly_once, origin, running, settings, until_all_out
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce

pytestmark = pytest.mark.kafka

Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]

SCRIPTS = {
    "Latin": "Økonomi og miljø",
    "Greek": "Οικονομία",
    "Cyrillic": "Экономика",
    "Arabic": "اقتصاد",
    "Hebrew": "כלכלה",
    "Devanagari": "अर्थशास्त्र",
    "Bengali": "অর্থনীতি",
    "Tamil": "பொருளியல்",
    "Thai": "เศรษฐศาสตร์",
    "Georgian": "ეკონომიკა",
    "Armenian": "Տնտեսագիտություն",
    "Ethiopic": "ምጣኔ ሀብት",
    "Khmer": "សេដ្ឋកិច្ច",
    "Han": "经济学",
    "Hiragana": "けいざいがく",
    "Katakana": "ケイザイガク",
    "Hangul": "경제학",
    "Mongolian": "ᠡᠳ᠋ ᠦᠨ ᠵᠠᠰᠠᠭ",
    "Cherokee": "ᎠᏕᎳ",
    "Emoji": "👩‍👩‍👧‍👦💸",
    "Gothic": "𐌲𐌰𐍂𐌳𐌹",
    "Zalgo": "e" + "\u0301" * 500,
    "Direction": "\u202eabc\u202c",
}

TAGGED: dict[str, Record] = {
    **{f"script-{name}": (None, event(f"s-{name}", text), []) for name, text in SCRIPTS.items()},
    "at the limit": (None, event("limit", "x" * TEXT_CHARS), []),
    "no space": (None, event("solid", "a" * TEXT_CHARS), []),
    "nul": (None, event("nul", "a\x00b"), []),
    "no key": (None, event("keyless"), []),
    "unknown field": (None, event("extra", colour="red"), []),
    "a title alone": (b"t", json.dumps({"id": "t", "title": "T"}).encode(), []),
}
SET_ASIDE: dict[str, Record] = {
    "no bytes": (b"k", b"", []),
    "not UTF-8": (b"k", b"\xff\xfe\x00", []),
    "no JSON": (b"k", b"{", []),
    "deep": (b"k", b"[" * 100_000, []),
    "a number": (b"k", b"1e999", []),
    "NaN": (None, b'{"id": "n", "text": NaN}', []),
    "wrong types": (None, b'{"id": 7, "text": ["x"]}', []),
    "no id": (None, b'{"text": "x"}', []),
    "empty id": (None, event(""), []),
    "empty text": (None, event("empty", ""), []),
    "lone surrogate": (None, b'{"id": "l", "text": "\\ud800"}', []),
    "surrogate bytes": (None, b'{"id": "l", "text": "\xed\xa0\x80"}', []),
    "above the limit": (None, event("above", "x" * (TEXT_CHARS + 1)), []),
    "1 MB without a space": (None, event("solid2", "a" * 990_000), []),
    "metadata": (None, event("m", metadata={"x": "y" * 20_000}), []),
    "no key, no value": (None, None, []),
    "a key that is not UTF-8": (b"\xff", None, []),
    "a long key": (b"k" * 100_000, b"{", []),
    "many headers": (b"k", b"{", [(f"h{i}", b"x" * 100) for i in range(1000)]),
    "headers like ours": (b"k", b"{", [("tagbus.source.offset", b"12345"), ("__streams.errors.topic", b"x")]),
    "wrong cloud event": (b"k", b"{}", [("ce_specversion", b"1.0"), ("ce_type", b"\xff")]),
}


def test_each_is_tagged_or_set_aside(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]) -> None:
    names = topics(
        {
            "content": (2, {"max.message.bytes": "4000000"}),
            "tagged": 2,
            "dead_letters": 2,
            "exemplars": 1,
            "feedback": 1,
            "versions": 2,
        }
    )
    records = [*TAGGED.values(), *SET_ASIDE.values(), (b"k", None, [])]
    with running(settings(kafka.address, names), Trivial()) as run:
        run.until_ready()
        produce(kafka.address, names["content"], records)
        until_all_out(kafka.address, names, len(records), seconds=10)
    exactly_once(kafka.address, names)
    assert len(consume_all(kafka.address, names["tagged"])) == len(TAGGED) + 1
    given = {(m.partition() or 0, m.offset() or 0): m for m in consume_all(kafka.address, names["content"])}
    letters = consume_all(kafka.address, names["dead_letters"])
    assert len(letters) == len(SET_ASIDE)
    for letter in letters:
        source = given[origin(letter)]
        headers = dict(letter.headers() or [])
        assert letter.value() == source.value()
        assert (letter.key() or b"").startswith((source.key() or b"")[:8192])
        assert headers["__streams.errors.exception"] in {b"Undecodable", b"InvalidEvent"}
        assert headers["__streams.errors.topic"] == names["content"].encode()
        assert [pair[0] for pair in letter.headers() or []].count("tagbus.source.offset") == 1


def test_a_value_too_large_for_the_topic_is_cut_with_its_hash(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]
) -> None:
    large = {"max.message.bytes": "9000000"}
    names = topics(
        {"content": (1, large), "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 1}
    )
    value = bytes(range(256)) * 12_000
    producer = Producer({"bootstrap.servers": kafka.address, "message.max.bytes": 9_000_000})
    producer.produce(names["content"], value, b"big")
    assert producer.flush(10) == 0
    with running(settings(kafka.address, names), Trivial()):
        until_all_out(kafka.address, names, 1)
    (letter,) = consume_all(kafka.address, names["dead_letters"])
    headers = dict(letter.headers() or [])
    cut = letter.value() or b""
    assert len(cut) == 1_000_000 - len(b"big")
    assert value.startswith(cut)
    assert headers["tagbus.value.bytes"] == str(len(value)).encode()
    assert headers["tagbus.value.sha256"] == hashlib.sha256(value).hexdigest().encode()
