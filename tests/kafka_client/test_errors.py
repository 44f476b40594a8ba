"""librdkafka's errors in our own tree, and the rights that their messages name."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown, Fatal, Fenced, TagbusError, TopicMissing, UserError
from tagbus.stream.kafka.access import failure
from tagbus.stream.kafka.errors import classify, error_of, map_kafka_errors
from tagbus.stream.kafka.rights import Operation

RIGHTS = KafkaSettings(
    brokers="127.0.0.1:1", group="g", transactional_id="P", instance="I", options={"sasl.username": "worker"}
)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (KafkaError(KafkaError._FENCED, fatal=True), Fenced),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH), Fenced),
        (KafkaError(KafkaError.FENCED_INSTANCE_ID, fatal=True), Fenced),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), UserError),
        (KafkaError(KafkaError._AUTHENTICATION), UserError),
        (KafkaError(KafkaError.INVALID_SESSION_TIMEOUT), UserError),
        (KafkaError(KafkaError.INVALID_TRANSACTION_TIMEOUT, fatal=True), UserError),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), TopicMissing),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True), Fatal),
        (KafkaError(KafkaError._TRANSPORT), None),
        (KafkaError(KafkaError._ALL_BROKERS_DOWN), None),
        (KafkaError(KafkaError.NOT_ENOUGH_REPLICAS, retriable=True), None),
    ],
)
def test_errors_are_sorted_by_what_helps(error: KafkaError, ending: type[TagbusError] | None) -> None:
    found = classify(error, RIGHTS, "content")
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
    found = str(classify(KafkaError(code), RIGHTS, "content", operation))
    assert found.startswith(f"Kafka refuses User:worker: grant {right} (")


def test_who_is_not_let_in_is_told_where_to_look() -> None:
    found = str(classify(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED), RIGHTS, "content"))
    assert found.startswith("Kafka rejects the credentials of User:worker (SASL_AUTHENTICATION_FAILED)")
    assert "kafka.secrets" in found


def test_a_membership_that_is_still_held_says_what_to_wait_for() -> None:
    found = classify(KafkaError(KafkaError.UNRELEASED_INSTANCE_ID, fatal=True), RIGHTS, "content")
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
    assert type(classify(error, RIGHTS, "content")) is expected


def test_whatever_a_call_raises_is_a_kafka_error() -> None:
    fatal = KafkaError(KafkaError._FENCED, fatal=True)
    wrapped = SystemError("a callback ran with an error set")
    wrapped.__cause__ = KafkaException(fatal)
    assert error_of(KafkaException(fatal)) == error_of(fatal) == error_of(wrapped) == fatal
    with pytest.raises(SystemError, match="another"):
        error_of(SystemError("another"))


@pytest.mark.parametrize(
    "text",
    [
        # As confluent-kafka raises it where a log line comes behind a fatal error
        "<method 'poll' of 'cimpl.Producer' objects> returned NULL without setting an exception",
        # From the close of a fenced consumer
        "_PyErr_SetObject: exception <class 'str'> is not a BaseException subclass",
    ],
)
def test_a_client_that_has_lost_its_error_has_failed_for_good(text: str) -> None:
    raised = SystemError(text)
    # Then it is a fatal error, which ends the process
    error = error_of(raised)
    assert error.code() == KafkaError._FATAL
    assert type(classify(error, RIGHTS, "content")) is Fatal
    # And its cause, where the client still has it
    fenced = KafkaError(KafkaError._FENCED, fatal=True)
    raised.__context__ = KafkaException(fenced)
    assert error_of(raised) == fenced


@pytest.mark.parametrize("raised", [KafkaError, KafkaException])
def test_around_a_call_what_ends_the_process_is_of_our_tree_and_the_rest_is_the_clients(raised: type) -> None:
    def call(code: int) -> None:
        error = KafkaError(code)
        raise error if raised is KafkaError else KafkaException(error)

    with pytest.raises(UserError, match="grant Write on topic tagged"), map_kafka_errors(RIGHTS, "tagged", "Write"):
        call(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException) as caught, map_kafka_errors(RIGHTS, "tagged"):
        call(KafkaError._TRANSPORT)
    assert error_of(caught.value).code() == KafkaError._TRANSPORT


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        (KafkaError.INVALID_CONFIG, UserError),
        (KafkaError.MSG_SIZE_TOO_LARGE, UserError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, UserError),
        (KafkaError._UNKNOWN_TOPIC, TopicMissing),
        (KafkaError._TRANSPORT, DependencyDown),
        (KafkaError.LEADER_NOT_AVAILABLE, DependencyDown),
    ],
)
def test_a_call_that_is_not_repeated_fails_with_one_error(code: int, ending: type[TagbusError]) -> None:
    found = failure(KafkaException(KafkaError(code)), RIGHTS, "topic t was not made", "t", "Create")
    assert type(found) is ending
