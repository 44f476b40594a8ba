"""Errors that librdkafka reports ten times a second while brokers are down are logged as one line of each kind."""

import logging

import pytest
from confluent_kafka import KafkaError

from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.logs import REPEAT_SECONDS, RateLimit, report


def line(kind: str, at: float, level: int = logging.WARNING) -> logging.LogRecord:
    record = logging.LogRecord("kafka", level, "", 0, "%s [%s] %s", (kind, "rdkafka", "text"), None)
    record.created = at
    return record


def test_a_kind_is_logged_once_in_a_while() -> None:
    limit, start = RateLimit(), 1_000_000.0
    assert limit.filter(line("FAIL", start))
    assert not limit.filter(line("FAIL", start + REPEAT_SECONDS - 1))
    assert limit.filter(line("ERROR", start + REPEAT_SECONDS - 1))
    assert limit.filter(line("FAIL", start + REPEAT_SECONDS))


def test_what_is_no_warning_is_never_held_back() -> None:
    limit = RateLimit()
    assert all(limit.filter(line("CONNECT", 1_000_000.0, logging.INFO)) for _ in range(3))


def test_an_error_is_reported_by_name_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    report(KafkaError(KafkaError.NOT_COORDINATOR, "moved"))
    report(DependencyDown("no broker answered for topic content"))
    assert "error=NOT_COORDINATOR reason=moved" in caplog.text
    assert "no broker answered for topic content" in caplog.text
