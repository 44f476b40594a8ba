"""The clients' properties: what passes through, what may not be changed, and what is never shown."""

import json

import pytest
from confluent_kafka import KafkaError, KafkaException

from tagbus.stream.config import CONFIDENTIAL, Settings, load
from tagbus.stream.errors import Fatal, Fenced, TagbusError, UserError
from tagbus.stream.kafka import client
from tagbus.stream.kafka.refusal import Operation


def given(**kafka: object) -> Settings:
    return Settings.model_validate({"kafka": {"brokers": "127.0.0.1:1", "options": {"log_level": "0"}, **kafka}})


RIGHTS = given(group="g", transactional_id="P", instance="I", options={"sasl.username": "worker"}).kafka


def nothing(error: KafkaError) -> None:
    """An error callback."""


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("enable.auto.commit", "tagbus commits each batch itself"),
        ("group.id", r"kafka\.group"),
        ("group.protocol", r"kafka\.group_protocol"),
        ("group.instance.id", r"kafka\.membership"),
        ("auto.offset.reset", r"kafka\.start and kafka\.out_of_range"),
        ("transactional.id", r"kafka\.transactional_id and kafka\.instance"),
        ("partitioner", "where Java clients put them"),
    ],
)
def test_what_the_guarantee_rests_on_may_not_be_set(name: str, right: str) -> None:
    with pytest.raises(UserError, match=f"{name} may not be set there, set .*{right}"):
        client.consumer(given(options={name: "x"}), nothing)


@pytest.mark.parametrize("name", sorted(CONFIDENTIAL))
def test_a_secret_is_refused_among_the_options(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__OPTIONS", json.dumps({"ssl.ca.location": "/ca.pem", name: "hunter2"}))
    with pytest.raises(UserError, match=f"{name} is a secret, set it in kafka.secrets") as raised:
        load()
    assert "hunter2" not in str(raised.value)


def test_a_misspelt_property_is_named() -> None:
    with pytest.raises(UserError, match=r"securty\.protocol"):
        client.consumer(given(options={"securty.protocol": "ssl"}), nothing)


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(UserError) as raised:
        client.producer(given(secrets={"sasl.mechanism": "hunter2"}, options={"security.protocol": "hunter2"}), nothing)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("membership", ["dynamic", "static"])
def test_both_group_protocols_and_memberships_are_taken(protocol: str, membership: str) -> None:
    # KIP-848: librdkafka refuses settings of session, heartbeat and strategy.
    client.consumer(given(group_protocol=protocol, membership=membership, session_seconds=30), nothing).close()


def test_what_the_new_group_protocol_does_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"partition\.assignment\.strategy"):
        client.consumer(given(group_protocol="consumer", options={"partition.assignment.strategy": "range"}), nothing)


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
    found = client.named(error, "content", RIGHTS)
    assert type(found) is ending if ending else found is None


@pytest.mark.parametrize(
    ("code", "operation", "right"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Read", "Read on topic content"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Write", "Write on topic content"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "Write", "Read on group g"),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Read", "Write on transactional id P-I"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "Write", "IdempotentWrite on the cluster"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "Create", "Create on the cluster"),
    ],
)
def test_a_refusal_names_the_right_to_grant_and_to_whom(code: int, operation: Operation, right: str) -> None:
    found = str(client.named(KafkaError(code), "content", RIGHTS, operation))
    assert found.startswith(f"Kafka refuses User:worker: grant {right} (")


def test_who_is_not_let_in_is_told_where_to_look() -> None:
    found = str(client.named(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED), "content", RIGHTS))
    assert found.startswith("Kafka does not let User:worker in (SASL_AUTHENTICATION_FAILED)")
    assert "kafka.secrets" in found


def test_a_membership_that_is_still_held_says_what_to_wait_for() -> None:
    found = client.named(KafkaError(KafkaError.UNRELEASED_INSTANCE_ID, fatal=True), "content", RIGHTS)
    assert type(found) is Fatal
    assert "kafka.instance=I" in str(found)
    assert "group.consumer.session.timeout.ms" in str(found)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (KafkaError.FENCED_INSTANCE_ID, Fenced),
        (KafkaError.UNRELEASED_INSTANCE_ID, Fatal),
        (KafkaError.GROUP_MAX_SIZE_REACHED, Fatal),
    ],
)
def test_a_consumers_fatal_error_is_told_by_its_text(cause: int, expected: type[Fatal]) -> None:
    # As librdkafka hands it to the consumer: the code says _FATAL, and the error is not marked so.
    error = KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(cause).str()}: Fatal consumer error: ...")
    assert type(client.named(error, "content", RIGHTS)) is expected


def test_whatever_a_call_raises_is_a_kafka_error() -> None:
    fatal = KafkaError(KafkaError._FENCED, fatal=True)
    wrapped = SystemError("a callback ran with an error set")
    wrapped.__cause__ = KafkaException(fatal)
    assert client.error_of(KafkaException(fatal)) == client.error_of(fatal) == client.error_of(wrapped) == fatal
    with pytest.raises(SystemError, match="another"):
        client.error_of(SystemError("another"))
