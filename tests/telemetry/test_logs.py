"""JSON log lines."""

import io
import json
import logging
from typing import Any

from tagbus.stream.telemetry.logs import BatchPosition, JsonFormatter, at

CANARY = "xyzzy-canary"


def logged(words: str, *values: object, **given: Any) -> dict[str, Any]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tagbus.test")
    logger.addHandler(handler)
    try:
        logger.warning(words, *values, **given)
    finally:
        logger.removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_is_an_object_with_what_it_is_about() -> None:
    with at(BatchPosition("content", 3, 40, "0af7")):
        found = logged("tag: contents=%d", 5, extra={"content": "c1"})
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "warning",
        "logger": "tagbus.test",
        "thread": "MainThread",
        "message": "tag: contents=5",
        "topic": "content",
        "partition": 3,
        "offset": 40,
        "trace_id": "0af7",
        "content": "c1",
    }


def test_what_a_line_is_about_itself_goes_before_the_batch() -> None:
    with at(BatchPosition("content", 3, 40)):
        assert logged("x", extra={"offset": 42})["offset"] == 42
        assert "trace_id" not in logged("x")


def test_a_hostile_message_stays_on_its_line_and_within_bounds() -> None:
    assert logged("a\nb\x1b[2J\u2028%s", "x" * 10_000)["message"].startswith("a\nb\x1b[2J\u2028xxx")
    assert len(logged("%s", "x" * 10_000)["message"]) == 4_096


def test_an_exception_is_logged_with_class_and_stack_and_without_its_message() -> None:
    try:
        raise ValueError(f"cannot read {CANARY}")
    except ValueError:
        found = logged("failed", exc_info=True)
    assert found["exception"] == "ValueError"
    assert any("test_logs.py" in one for one in found["stack"])
    assert CANARY not in json.dumps(found)
