"""Where a partition starts, resumes and ends, on Apache Kafka itself."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tagbus.stream.bus.consume.bounds import ReadRange
from tagbus.stream.config import Settings
from tagbus.stream.errors import OffsetLost
from tests.bus.harness import Process, Running, ending, event, events, outcome, running, settings, until_all_out
from tests.bus.taggers import Gated, Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, unique, wait_until

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
Names = dict[str, str]
PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


@pytest.fixture
def names(topics: Make) -> Names:
    """The topics, one partition each."""
    return topics({"content": 1, "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 1})


def given_for(kafka: Broker, names: Names, **more: object) -> Settings:
    return settings(kafka.address, names, kafka={"session_seconds": 2, **more})


def committed(given: Settings) -> int:
    """The offset that the group has committed, below 0 for none."""
    consumer = Consumer({"bootstrap.servers": given.kafka.brokers, "group.id": given.kafka.group})
    try:
        (found,) = consumer.committed([TopicPartition(given.topics.content, 0)], 10)
        return found.offset
    finally:
        consumer.close()


def lose(kafka: Broker, names: Names, before: int) -> None:
    """Delete the first records of content, as retention does."""
    admin = AdminClient({"bootstrap.servers": kafka.address})
    place = TopicPartition(names["content"], 0, before)
    admin.delete_records([place])[TopicPartition(names["content"], 0)].result(120)


def offsets(kafka: Broker, names: Names) -> list[int]:
    return sorted(offset for _, offset in outcome(kafka.address, names))


def test_an_offset_that_is_gone_ends_the_process_with_code_11(kafka: Broker, names: Names, tmp_path: Path) -> None:
    # Given a group that has committed up to 10, and deleted records below 20
    given = given_for(kafka, names)
    produce(kafka.address, names["content"], events(10))
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 10)
    produce(kafka.address, names["content"], events(20, "d"))
    lose(kafka, names, 20)
    # When it is started again
    process = Process(given, tmp_path / "log")
    with ending([process]):
        assert process.ended() == OffsetLost.exit_code == 11
    # Then it says what is there, and nothing went out
    assert "offset 10 of" in process.text()
    assert "which has 20 to 30; kafka.out_of_range" in process.text()
    assert offsets(kafka, names) == list(range(10))
    # And with the other setting it continues
    with running(
        given.model_copy(update={"kafka": given.kafka.model_copy(update={"out_of_range": "earliest"})}), Trivial()
    ):
        until_all_out(kafka.address, names, 20)
    assert offsets(kafka, names) == [*range(10), *range(20, 30)]


@PROTOCOLS
def test_a_group_that_begins_at_the_end_misses_nothing_from_then_on(kafka: Broker, names: Names, protocol: str) -> None:
    # Given a new group that begins at the latest record, and ends before any came
    produce(kafka.address, names["content"], events(10))
    given = given_for(kafka, names, start="latest", group_protocol=protocol)
    with running(given, Trivial()):
        wait_until(lambda: committed(given) == 10, 120)
    # When records arrive while no worker runs
    produce(kafka.address, names["content"], events(5, "d"))
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 5)
    # Then the next one reads them
    assert offsets(kafka, names) == list(range(10, 15))


def test_a_backfill_from_a_time_to_the_end_leaves_out_what_came_before_and_after(kafka: Broker, names: Names) -> None:
    # Given records of two moments, the last of them in transactions that end with a marker
    produce(kafka.address, names["content"], events(10))
    moment = datetime.now(UTC) + timedelta(milliseconds=50)
    wait_until(lambda: datetime.now(UTC) > moment, 120)
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": unique("upstream")})
    producer.init_transactions(10)
    for number in range(3):
        producer.begin_transaction()
        producer.produce(names["content"], event(f"t{number}"), f"t{number}".encode())
        producer.commit_transaction(10)
    # When a group of its own reads them
    run = Running(given_for(kafka, names), Trivial(), read_range=ReadRange(moment, "end"))
    run.join()
    # Then it ends on its own, past the markers
    assert run.error is None
    assert offsets(kafka, names) == [10, 12, 14]


def test_one_of_two_that_backfill_ends_when_the_other_has(kafka: Broker, topics: Make) -> None:
    names = topics({"content": 2, "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 2})
    for partition in (0, 1):
        produce(kafka.address, names["content"], events(50, f"p{partition}-"), partition)
    given = given_for(kafka, names)
    other = given.model_copy(update={"kafka": given.kafka.model_copy(update={"instance": "two"})})
    runs = [Running(one, Trivial(0.2), read_range=ReadRange("earliest", "end", rate=100)) for one in (given, other)]
    for run in runs:
        run.join()
        assert run.error is None
    assert outcome(kafka.address, names).total() == 100
    assert len(outcome(kafka.address, names)) == 100


def recreate(kafka: Broker, name: str, partitions: int = 1) -> None:
    """Delete a topic and create it again, as fast as the broker does."""
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.delete_topics([name])[name].result(120)
    while True:
        try:
            admin.create_topics([NewTopic(name, partitions)])[name].result(120)
            return
        except KafkaException as exception:
            if exception.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def ids(kafka: Broker, names: Names, topic: str = "tagged") -> list[bytes]:
    """The keys on a topic of results, in order."""
    return [message.key() or b"" for message in consume_all(kafka.address, names[topic])]


class TestATopicThatIsCreatedAgain:
    """Offsets go back under a worker that runs."""

    @PROTOCOLS
    def test_it_is_read_from_its_beginning_where_the_setting_says_so(
        self, kafka: Broker, names: Names, protocol: str
    ) -> None:
        given = given_for(kafka, names, out_of_range="earliest", group_protocol=protocol)
        produce(kafka.address, names["content"], events(20))
        with running(given, Trivial()) as run:
            until_all_out(kafka.address, names, 20)
            recreate(kafka, names["content"])
            produce(kafka.address, names["content"], events(5, "new"))
            wait_until(lambda: run.error or len(ids(kafka, names)) == 25, 120, "what is new to come out")
            # It continues from there, and so does a later start
            produce(kafka.address, names["content"], events(5, "more"))
            wait_until(lambda: run.error or len(ids(kafka, names)) == 30, 120, "what comes later to come out")
            wait_until(lambda: committed(given) == 10, 120, "the commit of all")
        assert ids(kafka, names)[20:] == [b"%s%d" % (prefix, i) for prefix in (b"new", b"more") for i in range(5)]

    def test_it_is_read_from_its_end_where_the_setting_says_so(self, kafka: Broker, names: Names) -> None:
        # Given a worker that is busy with the old topic until there are records in the new one
        given = given_for(kafka, names, out_of_range="latest")
        produce(kafka.address, names["content"], events(20))
        tagger = Gated(lambda content: content.id.startswith("c"))
        with running(given, tagger) as run:
            wait_until(lambda: tagger.waiting or run.error, 120, "a batch at the tagger")
            recreate(kafka, names["content"])
            produce(kafka.address, names["content"], events(5, "new"))
            tagger.open = True
            wait_until(lambda: run.error or committed(given) == 5, 120, "the worker at the end of the new topic")
            produce(kafka.address, names["content"], events(5, "more"))
            wait_until(lambda: run.error or len(ids(kafka, names)) == 25, 120, "what comes later to come out")
        assert ids(kafka, names)[20:] == [b"more%d" % i for i in range(5)]

    def test_it_ends_the_worker_with_code_11_where_the_setting_says_so(self, kafka: Broker, names: Names) -> None:
        # Given a batch of the old topic that is still at the tagger
        given = given_for(kafka, names, out_of_range="stop")
        produce(kafka.address, names["content"], events(20))
        tagger = Gated(lambda _: True)
        run = Running(given, tagger)
        wait_until(lambda: tagger.waiting or run.error, 120, "a batch at the tagger")
        recreate(kafka, names["content"])
        produce(kafka.address, names["content"], events(5, "new"))
        # When it is done, then it is published first: its record cannot be read again
        tagger.open = True
        run.join(120)
        assert isinstance(run.error, OffsetLost), run.error
        assert run.error.exit_code == 11
        assert "offset 20 of" in str(run.error)
        assert len(ids(kafka, names)) == 20

    def test_what_is_in_flight_comes_out_before_what_is_new(self, kafka: Broker, names: Names) -> None:
        given = given_for(kafka, names, out_of_range="earliest")
        produce(kafka.address, names["content"], events(20))
        tagger = Gated(lambda content: content.id.startswith("c"))
        with running(given, tagger) as run:
            wait_until(lambda: tagger.waiting or run.error, 120, "a batch at the tagger")
            recreate(kafka, names["content"])
            produce(kafka.address, names["content"], events(5, "new"))
            tagger.open = True
            wait_until(lambda: run.error or len(ids(kafka, names)) == 25, 120, "all to come out")
        assert ids(kafka, names)[20:] == [b"new%d" % i for i in range(5)]

    def test_the_published_versions_of_its_contents_still_count(self, kafka: Broker, names: Names) -> None:
        given = given_for(kafka, names, out_of_range="earliest")
        first = [(b"a", event("a", version=2), []), (b"b", event("b", version=2), [])]
        produce(kafka.address, names["content"], [*first, *events(10)])
        with running(given, Trivial()) as run:
            until_all_out(kafka.address, names, 12)
            recreate(kafka, names["content"])
            again = [(b"a", event("a", version=1), []), (b"b", event("b", version=2), [])]
            produce(kafka.address, names["content"], again)
            wait_until(lambda: run.error or len(ids(kafka, names)) == 13, 120, "what is new to come out")
        # Its results stand on `tagged`, whatever became of the records that they came from.
        assert ids(kafka, names)[12:] == [b"b"]
        assert ids(kafka, names, "dead_letters") == [b"a"]
