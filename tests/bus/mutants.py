"""Mutated events: the examples in every form that a producer may send, damaged in every layer at random."""

import base64
import json
from collections.abc import Callable
from random import Random
from typing import cast

from pydantic import JsonValue

from tagbus.stream.app.data.examples import example
from tagbus.stream.cli.demo.scenes import broken
from tagbus.stream.contract.codec import Record

Headers = tuple[tuple[str, bytes | None], ...]
Fields = dict[str, JsonValue]

# Replacements of a field, including some beyond the contract's limits: an id of 257 characters, 2**63.
WRONG: tuple[JsonValue, ...] = (
    None, True, False, 0, -1, 1.5, 1e300, 2**63 - 1, 2**63, 10**400, "", " ", "x", "\u0000", "\u202e", "é" * 300,
    "x" * 257, "1", "1e999", "2026-02-30T00:00:00Z", "2026-01-31T09:30:00Z", "0000-01-01T00:00:00Z", [], [[]], [None],
    {}, {"": None}, {"id": "x"}, ["x"] * 2000,
)  # fmt: skip
NAMES = ("id", "title", "text", "language", "time", "version", "metadata", "data", "data_base64", "", "__proto__", "Id")
HEADER_NAMES = (
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "CE_ID", "content-type", "Content-Type",
    "datacontenttype", "tagbus.source.topic", "tagbus.source.offset", "tagbus.source.partition", "tagbus.replays",
    "tagbus.value.bytes", "__streams.errors.topic", "__streams.errors.offset", "traceparent", "x", "é",
)  # fmt: skip
HEADER_VALUES = (
    None, b"", b"1.0", b"0.3", b"application/json", b"application/cloudevents+json; charset=utf-8", b"text/xml",
    b"application/cloudevents-batch+json", b"application/avro", b"\xff", b"9" * 5000, b"-1", b"x" * 20_000,
)  # fmt: skip
TOKENS = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"NaN",
    b"-",
    b"1e999",
    b"\\",
)
CE = {"specversion": "1.0", "id": "e1", "source": "/cms", "type": "published", "time": "2026-01-31T09:30:00Z"}
# Depths of nesting and lengths of a text, including one beyond the contract's limit.
DEPTHS = (2, 50, 5_000)
LENGTHS = (4_097, 16_500, 500_001)


class Mutants:
    """Yields records; the same random source gives the same ones."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._seeds = [
            cast(Fields, json.loads(line))
            for name in ("content.jsonl", "new_tag_content.jsonl")
            for line in example(name).read_text(encoding="utf-8").splitlines()
        ]
        self._broken = list(broken())

    def next(self) -> Record:
        """The next record: some are whole, most are damaged once, some up to four times."""
        record = self._whole()
        for _ in range(self._random.choices([0, 1, 2, 3, 4], [15, 45, 25, 10, 5])[0]):
            (damage,) = self._random.choices([self._of_value, self._of_key, self._of_headers], [7, 2, 2])
            record = damage(record)
        return record

    def _whole(self) -> Record:
        if self._random.random() < 0.02:
            return self._random.choice(self._broken)
        fields = dict(self._random.choice(self._seeds))
        # Few ids, so that their versions meet, and their withdrawals.
        fields["id"] = f"c{self._random.randrange(2000)}"
        if self._random.random() < 0.3:
            fields["version"] = self._random.randrange(1000)
        if self._random.random() < 0.3:
            fields |= self._random.choice([{"title": "A title"}, {"time": CE["time"]}, {"metadata": {"a": [1, None]}}])
        if self._random.random() < 0.5:
            fields = self._damaged(fields)
        form = self._random.choice([self._plain, self._plain, self._binary, self._structured, self._registered])
        return form(fields)

    def _plain(self, fields: Fields) -> Record:
        return Record(_key(fields), _bytes(fields))

    def _binary(self, fields: Fields) -> Record:
        headers = tuple((f"ce_{name}", value.encode()) for name, value in CE.items())
        return Record(_key(fields), _bytes(fields), (*headers, ("content-type", b"application/json")))

    def _structured(self, fields: Fields) -> Record:
        data: Fields = (
            {"data": fields}
            if self._random.random() < 0.5
            else {"data_base64": base64.b64encode(_bytes(fields)).decode()}
        )
        return Record(_key(fields), _bytes({**CE, **data}), (("content-type", b"application/cloudevents+json"),))

    def _registered(self, fields: Fields) -> Record:
        """In the wire format of Confluent's schema registry: a zero byte, the schema's id, the JSON."""
        magic = self._random.choice([b"\x00", b"\x00", b"\x00", b"\x01"])
        return Record(_key(fields), magic + self._random.randrange(2**32).to_bytes(4) + _bytes(fields))

    def _damaged(self, fields: Fields) -> Fields:
        """One field is wrong, missing, new or misspelt, or the whole is nested."""
        fields = dict(fields)
        name = self._random.choice([*fields, *NAMES])
        act = self._random.randrange(8)
        if act < 4:
            fields[name] = self._random.choice(WRONG)
        elif act == 4:
            fields.pop(name, None)
        elif act == 5:
            fields[name.upper()] = fields.pop(name, None)
        elif act == 6:
            fields[name] = fields[self._random.choice(list(fields))]
        else:
            fields["metadata"] = {"deep": dict(fields)}
        return fields

    def _of_value(self, record: Record) -> Record:
        value = record.value
        if value is None or self._random.random() < 0.05:
            return Record(record.key, None if value is not None else b"", record.headers)
        acts: dict[Callable[[bytes], bytes], int] = {
            self._flip: 30, self._cut: 10, self._insert: 20, self._remove: 20, self._repeat: 10, self._recode: 5,
            self._swell: 1, self._deepen: 1, self._noise: 2,
        }  # fmt: skip
        (act,) = self._random.choices(list(acts), list(acts.values()))
        return Record(record.key, act(value), record.headers)

    def _of_key(self, record: Record) -> Record:
        key = self._random.choice(
            [None, b"", b"c7", b"\xff", b"k" * 257, b"k" * 9_000, (record.key or b"") + b" ", self._noise(b"")]
        )
        return Record(key, record.value, record.headers)

    def _of_headers(self, record: Record) -> Record:
        headers = list(record.headers)
        act = self._random.randrange(5)
        if act == 0 and headers:
            headers.pop(self._random.randrange(len(headers)))
        elif act == 1 and headers:
            at = self._random.randrange(len(headers))
            headers[at] = (headers[at][0], self._random.choice(HEADER_VALUES))
        elif act == 2 and headers:
            headers.insert(0, self._random.choice(headers))
        elif act == 3:
            headers += [
                (self._random.choice(HEADER_NAMES), self._noise(b"")) for _ in range(self._random.randrange(30))
            ]
        else:
            headers.append((self._random.choice(HEADER_NAMES), self._random.choice(HEADER_VALUES)))
        self._random.shuffle(headers)
        return Record(record.key, record.value, tuple(headers))

    def _flip(self, value: bytes) -> bytes:
        changed = bytearray(value)
        for _ in range(self._random.randint(1, 3) if changed else 0):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, value: bytes) -> bytes:
        return value[: self._at(value)]

    def _insert(self, value: bytes) -> bytes:
        at = self._at(value)
        return value[:at] + self._random.choice([*TOKENS, self._noise(b"")]) + value[at:]

    def _remove(self, value: bytes) -> bytes:
        at = self._at(value)
        return value[:at] + value[at + self._random.randint(1, 20) :]

    def _repeat(self, value: bytes) -> bytes:
        at = self._at(value)
        return value[:at] + value[max(0, at - self._random.randint(1, 60)) :]

    def _recode(self, value: bytes) -> bytes:
        text = value.decode(errors="replace")
        return self._random.choice(
            [text.encode("utf-16"), b"\xef\xbb\xbf" + value, b"\x00\x00\x00\x00\x01" + value, b" \n" + value]
        )

    def _swell(self, value: bytes) -> bytes:
        at = self._at(value)
        return value[:at] + b"x" * self._random.choice(LENGTHS) + value[at:]

    def _deepen(self, value: bytes) -> bytes:
        depth = self._random.choice(DEPTHS)
        return self._random.choice(
            [b"[" * depth + value + b"]" * depth, b'{"metadata":' * depth + value + b"}" * depth]
        )

    def _noise(self, _: bytes) -> bytes:
        return self._random.randbytes(self._random.randrange(40))

    def _at(self, value: bytes) -> int:
        return self._random.randint(0, len(value))


def _key(fields: Fields) -> bytes:
    return str(fields.get("id")).encode(errors="replace")


def _bytes(fields: Fields) -> bytes:
    return json.dumps(fields, ensure_ascii=len(fields) % 2 == 0).encode()
