"""The clients' properties: what passes through, what may not be changed, and what is never shown."""

import pytest
from confluent_kafka import KafkaError

from tagbus.stream.bus import client
from tagbus.stream.config import Settings
from tagbus.stream.errors import Fatal, Fenced, TagbusError, UserError


def given(**kafka: object) -> Settings:
    return Settings.model_validate({"kafka": {"brokers": "127.0.0.1:1", "options": {"log_level": "0"}, **kafka}})


def nothing(error: KafkaError) -> None:
    """An error callback."""


@pytest.mark.parametrize("name", ["enable.auto.commit", "group.id", "transactional.id", "partitioner"])
def test_what_the_guarantee_rests_on_may_not_be_set(name: str) -> None:
    with pytest.raises(UserError, match=name):
        client.consumer(given(options={name: "x"}), nothing)


def test_a_misspelt_property_is_named() -> None:
    with pytest.raises(UserError, match=r"securty\.protocol"):
        client.consumer(given(options={"securty.protocol": "ssl"}), nothing)


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(UserError) as raised:
        client.producer(given(secrets={"sasl.mechanism": "hunter2"}, options={"security.protocol": "hunter2"}), nothing)
    assert "hunter2" not in str(raised.value)


def test_the_new_group_protocol_is_taken() -> None:
    client.consumer(given(options={"group.protocol": "consumer"}), nothing).close()


def test_long_transactions_and_large_records_are_taken() -> None:
    client.producer(given(transaction_seconds=600), nothing)
    client.producer(given(delivery="at_least_once"), nothing)
    client.admin(given())


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (KafkaError(KafkaError._FENCED, fatal=True), Fenced),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH), Fenced),
        (KafkaError(KafkaError.FENCED_INSTANCE_ID, fatal=True), Fenced),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), UserError),
        (KafkaError(KafkaError._AUTHENTICATION), UserError),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), UserError),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True), Fatal),
        (KafkaError(KafkaError._TRANSPORT), None),
        (KafkaError(KafkaError._ALL_BROKERS_DOWN), None),
        (KafkaError(KafkaError.NOT_ENOUGH_REPLICAS, retriable=True), None),
    ],
)
def test_errors_are_sorted_by_what_helps(error: KafkaError, ending: type[TagbusError] | None) -> None:
    found = client.named(error, "content")
    assert type(found) is ending if ending else found is None
