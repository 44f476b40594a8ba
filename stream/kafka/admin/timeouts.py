"""Timeouts of the settings, and what brokers allow of them."""

from collections.abc import Sequence
from typing import Final

from tagbus.stream.config import KafkaSettings
from tagbus.stream.kafka.admin.layout import Configuration

LEAST_SESSION: Final = "group.min.session.timeout.ms"
MOST_SESSION: Final = "group.max.session.timeout.ms"
MOST_TRANSACTION: Final = "transaction.max.timeout.ms"


def refused_timeouts(kafka: KafkaSettings, broker: Configuration) -> Sequence[str]:
    """The timeouts that this broker refuses, in words; `broker`: its settings. One that it does not tell passes."""
    found = []
    least, most = _seconds(broker, LEAST_SESSION, 0.0), _seconds(broker, MOST_SESSION, float("inf"))
    # The session of KIP-848 is the broker's own.
    if kafka.group_protocol == "classic" and not least <= kafka.session_seconds <= most:
        found.append(
            f"kafka.session_seconds={kafka.session_seconds:g}, expected {least:g} to {most:g} "
            f"({LEAST_SESSION}, {MOST_SESSION})"
        )
    most = _seconds(broker, MOST_TRANSACTION, float("inf"))
    if kafka.delivery == "exactly_once" and kafka.transaction_seconds > most:
        found.append(
            f"kafka.transaction_seconds={kafka.transaction_seconds:g}, expected at most {most:g} ({MOST_TRANSACTION})"
        )
    return found


def _seconds(broker: Configuration, name: str, unknown: float) -> float:
    value = broker.get(name, "")
    return int(value) / 1000 if value.isdigit() else unknown
