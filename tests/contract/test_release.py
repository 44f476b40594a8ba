"""Records of `releases`: under a release's name, and under `active`."""

import json
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.contract.release import (
    Active,
    Curve,
    Fingerprint,
    Release,
    ReleaseRecord,
    Served,
    decode_release,
    encode_release,
)
from tagbus.stream.contract.schema import RELEASES, json_schema
from tagbus.stream.errors import InvalidEvent, Poison, Undecodable

HASH = "0123456789abcdef" * 4
ONE = Release(
    name="minilm-2",
    encoder="MiniLM",
    model_sha256=HASH,
    tokenizer_sha256=HASH,
    golden_sha256=HASH,
    precision="float32",
    dimension=384,
    max_tokens=256,
)
CURVE = Curve(
    name="isotonic-1",
    release=ONE.name,
    path="recall+heads+rank",
    components={"heads": "heads-1", "ranker": "ranker-1"},
    scores=(0.1, 0.5),
    probabilities=(0.2, 0.9),
    fitted_on=100,
    contents=10,
)
KEY = b"calibration/minilm-2/recall+heads+rank"
RECORDS = [
    ReleaseRecord(release=ONE),
    ReleaseRecord(release=ONE, triton=Served(model="encoder", version=2)),
    Active(release=ONE.name, time=datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
    CURVE,
]
# As version 1.2.0 of the contract wrote it; it is read for ever.
WRITTEN = (
    b'{"release":{"name":"minilm-2","encoder":"MiniLM","model_sha256":"%(h)s","tokenizer_sha256":"%(h)s",'
    b'"golden_sha256":"%(h)s","precision":"float32","dimension":384,"max_tokens":256,'
    b'"tag_template":"{name}\\n{aliases}\\n{description}","recall":{"c2t_threshold":0.35,"c2t_limit":15,'
    b'"c2c_threshold":0.35,"c2c2t_limit":20,"tau":0.08,"lambda":0.3,"tag_keys":20,"content_keys":50}},'
    b'"calibration":null,"triton":null}'
) % {b"h": HASH.encode()}


@pytest.mark.parametrize("event", RECORDS, ids=["alone", "whole", "active", "calibration"])
def test_what_is_written_is_read_and_is_as_the_schema_says(event: ReleaseRecord | Active | Curve) -> None:
    record = encode_release(event)
    assert decode_release(record) == event
    Draft202012Validator(json_schema(RELEASES)).validate(json.loads(record.value or b""))


def test_what_version_1_2_0_wrote_is_read() -> None:
    assert decode_release(Record(b"minilm-2", WRITTEN)) == ReleaseRecord(release=ONE)


def test_a_record_without_a_value_drops_a_release() -> None:
    assert decode_release(Record(b"minilm-2", None)) == Tombstone("minilm-2")


def test_a_calibration_stands_under_its_release_and_path() -> None:
    """So it may change while the release stays, and each path has its own."""
    assert encode_release(CURVE).key == KEY
    assert decode_release(Record(KEY, None)) == Tombstone(KEY.decode())
    assert CURVE.fingerprint == Fingerprint("minilm-2", CURVE.path, {"heads": "heads-1", "ranker": "ranker-1"})


def test_a_field_that_a_worker_does_not_know_passes_but_not_inside_a_release() -> None:
    """A release is served as it was recorded or not at all."""
    value = json.loads(WRITTEN)
    assert decode_release(Record(b"minilm-2", json.dumps(value | {"later": 1}).encode()))
    later = json.dumps(json.loads(encode_release(CURVE).value or b"") | {"later": 1}).encode()
    assert decode_release(Record(KEY, later)) == CURVE
    value["release"]["pooling"] = "last"
    with pytest.raises(InvalidEvent, match="pooling"):
        decode_release(Record(b"minilm-2", json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (None, WRITTEN, "key: "),
        (b"another", WRITTEN, "'minilm-2', as the value says"),
        (b"active", b'{"release": "../x", "time": "2026-01-31T09:30:00Z"}', "release"),
        (b"active", b'{"release": "minilm-2"}', "time"),
        (b"active", b"{", "JSON"),
        (
            b"calibration/minilm-2/recall",
            encode_release(CURVE).value,
            "'calibration/minilm-2/recall+heads+rank', as the",
        ),
        (b"calibration/minilm-2", encode_release(CURVE).value, f"{KEY.decode()}', as the value says"),
        (b"calibration/x/recall", b'{"name": "a", "release": "x/y", "path": "recall"}', "release"),
        (b"calibration/x/recall", b'{"name": "a", "release": "x", "path": "re call"}', "path"),
    ],
)
def test_what_is_wrong_is_named(key: bytes | None, value: bytes, words: str) -> None:
    with pytest.raises((InvalidEvent, Undecodable)) as caught:
        decode_release(Record(key, value))
    assert isinstance(caught.value, Poison)
    assert words in str(caught.value)


def test_no_release_is_called_active() -> None:
    with pytest.raises(ValidationError, match="names the one in force"):
        Release(**ONE.model_dump() | {"name": "active"})
