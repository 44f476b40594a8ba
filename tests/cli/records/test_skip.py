"""`tagbus skip` on Apache Kafka: one record is set aside and the group moves past it, or nothing changes."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tagbus.stream.contract.codec import read_dead_letter
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.message import record_of
from tests.cli.harness import Cli
from tests.cli.records.test_publish import settings
from tests.conftest import Broker
from tests.support import ANY_TIME, MICROSECONDS, Layout, consume_all, produce, unique, wait_until

HEADERS = [("trace", b"\x00\xff")]


@pytest.fixture
def given(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]) -> dict[str, str]:
    """Settings of a stopped group; five records in partition 1 of its topic."""
    names = topics({"content": (2, ANY_TIME), "dead_letters": 1})
    produce(kafka.address, names["content"], [(b"k%d" % n, b"\xffv%d" % n, HEADERS) for n in range(5)], 1)
    group = {"KAFKA__GROUP": unique("group"), "KAFKA__TRANSACTIONAL_ID": unique("tx")}
    return settings(kafka, names) | group | {"KAFKA__SESSION_SECONDS": "6"}


def member(given: Mapping[str, str]) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": given["KAFKA__BROKERS"],
            "group.id": given["KAFKA__GROUP"],
            "client.id": "tagbus-worker-7",
            "enable.auto.commit": False,
        }
    )


@contextmanager
def asking(given: Mapping[str, str]) -> Iterator[Consumer]:
    consumer = member(given)
    yield consumer
    consumer.close()


def place(given: Mapping[str, str], offset: int, partition: int = 1) -> str:
    return f"{given['TOPICS__CONTENT']}:{partition}:{offset}"


def commit(given: Mapping[str, str], offset: int) -> None:
    """The workers had come so far."""
    with asking(given) as consumer:
        consumer.commit(offsets=[TopicPartition(given["TOPICS__CONTENT"], 1, offset)], asynchronous=False)


def committed(given: Mapping[str, str]) -> int:
    with asking(given) as consumer:
        return consumer.committed([TopicPartition(given["TOPICS__CONTENT"], 1)], 30)[0].offset


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"KAFKA__GROUP_PROTOCOL": "consumer"},
        {"KAFKA__MEMBERSHIP": "static"},
        {"KAFKA__DELIVERY": "at_least_once"},
    ],
    ids=lambda how: next(iter(how.values()), "classic"),
)
def test_the_record_is_set_aside_and_the_group_goes_on(
    kafka: Broker, given: dict[str, str], tagbus: Cli, how: dict[str, str]
) -> None:
    # Given a group that stands at offset 2
    commit(given, 2)
    # When that record is skipped
    answer = tagbus("skip", place(given, 2), settings=given | how)
    # Then it is a dead letter as it came, and the next one is at 3
    assert (
        answer.err
        == f"{place(given, 2)} is set aside on {given['TOPICS__DEAD_LETTERS']}; the group resumes at offset 3\n"
    )
    assert answer.code == 0
    (message,) = consume_all(kafka.address, given["TOPICS__DEAD_LETTERS"])
    assert (message.key(), message.value()) == (b"k2", b"\xffv2")
    assert HEADERS[0] in (message.headers() or [])
    letter = read_dead_letter(record_of(message).headers)
    assert (letter.exception, letter.stage, letter.topic) == ("Skipped", "operator", given["TOPICS__CONTENT"])
    assert (letter.partition, letter.offset) == (1, 2)
    assert committed(given) == 3


def test_a_record_that_is_not_next_is_refused(kafka: Broker, given: dict[str, str], tagbus: Cli) -> None:
    commit(given, 2)
    for offset in (1, 3, 99):
        answer = tagbus("skip", place(given, offset), settings=given)
        assert answer.code == 2
        words = f"group {given['KAFKA__GROUP']} is at {place(given, 2)}, its next record is at 2"
        assert answer.one_line() == f"tagbus: {words}: offset {offset} cannot be skipped"
    commit(given, 5)
    answer = tagbus("skip", place(given, 5), settings=given)
    assert f"is at {place(given, 5)}, which is its end" in answer.one_line()
    assert consume_all(kafka.address, given["TOPICS__DEAD_LETTERS"]) == []
    assert committed(given) == 5


def test_a_group_without_offsets_stands_where_it_would_begin(given: dict[str, str], tagbus: Cli) -> None:
    answer = tagbus("skip", place(given, 0), settings=given | {"KAFKA__START": "latest"})
    assert f"is at {place(given, 5)}, which is its end" in answer.one_line()
    assert tagbus("skip", place(given, 0), settings=given).code == 0
    assert committed(given) == 1


def test_the_next_record_may_stand_behind_a_marker(kafka: Broker, given: dict[str, str], tagbus: Cli) -> None:
    # Given an aborted transaction at the offset that is committed, and a record behind it
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": unique("other")})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(given["TOPICS__CONTENT"], b"aborted", b"k", 1)
    producer.flush(30)
    producer.abort_transaction(30)
    produce(kafka.address, given["TOPICS__CONTENT"], [(b"k7", b"behind", [])], 1)
    commit(given, 5)
    assert "its next record is at 7" in tagbus("skip", place(given, 5), settings=given).one_line()
    assert tagbus("skip", place(given, 7), settings=given).code == 0
    assert committed(given) == 8


def test_a_group_at_work_is_refused_and_its_members_are_named(given: dict[str, str], tagbus: Cli) -> None:
    commit(given, 2)
    with asking(given) as worker:
        worker.subscribe([given["TOPICS__CONTENT"]])
        wait_until(lambda: worker.poll(0.1) or worker.assignment(), 120, "an assignment")
        answer = tagbus("skip", place(given, 2), settings=given)
    assert answer.code == 2
    assert answer.one_line().startswith(
        f"tagbus: group {given['KAFKA__GROUP']} is active (tagbus-worker-7 at 127.0.0.1): stop its workers first"
    )
    assert committed(given) == 2


@pytest.mark.parametrize(
    "where", ["content", "content:0", "content:0:-1", "content:x:1", ":0:1", "content:0:1:", "a b:0:1"]
)
def test_what_is_no_place_is_one_line(tagbus: Cli, where: str) -> None:
    answer = tagbus("skip", where)
    assert answer.code == 2
    assert answer.one_line().endswith("is not a topic position, expected TOPIC:PARTITION:OFFSET")


def test_a_place_that_the_group_does_not_read_is_one_line(given: dict[str, str], tagbus: Cli) -> None:
    answer = tagbus("skip", "elsewhere:0:1", settings=given)
    assert (answer.code, f"the group reads topic {given['TOPICS__CONTENT']}" in answer.one_line()) == (2, True)
    answer = tagbus("skip", place(given, 0, 2), settings=given)
    assert (answer.code, answer.one_line().endswith("has no partition 2")) == (2, True)


def test_a_record_time_in_microseconds_counts_as_none(kafka: Broker, given: dict[str, str], tagbus: Cli) -> None:
    commit(given, 5)
    produce(kafka.address, given["TOPICS__CONTENT"], [(b"k5", b"\xff", [])], 1, MICROSECONDS)
    answer = tagbus("skip", place(given, 5), settings=given)
    assert answer.code == 0
    assert committed(given) == 6
    assert f"record 1:5 has the timestamp {MICROSECONDS}, expected milliseconds from 1970 to 9999" in answer.err


class RefusedFirst:
    """A producer whose transaction is refused before its record is sent: a race in the real one."""

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None], **__: object) -> None:
        self._report = on_delivery

    def flush(self, _: float) -> int:
        self._report(KafkaError(KafkaError._PURGE_QUEUE), None)
        return 0

    def send_offsets_to_transaction(self, *_: object) -> None:
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    def init_transactions(self, _: float) -> None: ...

    def begin_transaction(self) -> None: ...

    def abort_transaction(self, _: float) -> None: ...


def test_a_transaction_that_is_refused_before_the_letter_is_sent_says_why(
    given: dict[str, str], tagbus: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "result_producer", lambda *_: RefusedFirst())

    answer = tagbus("skip", place(given, 0), settings=given)

    assert answer.code == 2
    assert f"Write on topic {given['TOPICS__DEAD_LETTERS']}" in answer.one_line()
    assert committed(given) < 0


def test_a_group_whose_coordinator_moves_is_asked_again(
    kafka: Broker, given: dict[str, str], tagbus: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is the first group of a cluster."""
    real, asked = AdminClient.describe_consumer_groups, []

    def describe(admin: AdminClient, groups: list[str], **options: float) -> object:
        asked.append(groups)
        if len(asked) > 1:
            return real(admin, groups, **options)
        moved: Future[object] = Future()
        moved.set_exception(KafkaException(KafkaError(KafkaError.NOT_COORDINATOR)))
        return dict.fromkeys(groups, moved)

    monkeypatch.setattr(AdminClient, "describe_consumer_groups", describe)

    assert tagbus("skip", place(given, 0), settings=given).code == 0

    assert len(asked) == 2
    assert len(consume_all(kafka.address, given["TOPICS__DEAD_LETTERS"])) == 1
