"""Topics that change under a worker: partitions are added, a topic is deleted, transactions leave their markers."""

from collections.abc import Callable, Mapping

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tagbus.stream.bus.process import state_topic
from tagbus.stream.config import Settings
from tagbus.stream.errors import UserError
from tests.bus.harness import Running, event, events, outcome, running, settings, until_all_out
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.support import Layout, consume_all, create_topics, produce, unique, wait_until

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
Names = dict[str, str]
SECONDS = 120.0
PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])
# Added partitions are found immediately, not after five minutes.
ALERT = {"topic.metadata.refresh.interval.ms": "200"}


def made(topics: Make, **layouts: Layout) -> Names:
    return topics(
        dict.fromkeys(("content", "tagged", "dead_letters", "exemplars", "feedback", "versions"), 1) | layouts
    )


def given_for(kafka: Broker, names: Names, **more: object) -> Settings:
    return settings(kafka.address, names, kafka={"options": ALERT, **more})


def grow(kafka: Broker, name: str, total: int) -> None:
    # A client that is not kept ends before it has its answer.
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.create_partitions([NewPartitions(name, total)])[name].result(30)


def delete(kafka: Broker, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.delete_topics([name])[name].result(30)
    wait_until(lambda: name not in admin.list_topics(timeout=10).topics, SECONDS, f"the end of {name}")


def offsets(given: Settings) -> list[tuple[int, int]]:
    """Of each partition of content: what the group has committed, below 0 for nothing, and the end."""
    consumer = Consumer({"bootstrap.servers": given.kafka.brokers, "group.id": given.kafka.group})
    try:
        numbers = sorted(consumer.list_topics(given.topics.content, 10).topics[given.topics.content].partitions)
        asked = [TopicPartition(given.topics.content, number) for number in numbers]
        committed = [found.offset for found in consumer.committed(asked, 10)]
        return [
            (offset, consumer.get_watermark_offsets(one, 10)[1]) for one, offset in zip(asked, committed, strict=True)
        ]
    finally:
        consumer.close()


class TestPartitionsAreAdded:
    def test_a_group_that_began_at_the_end_reads_all_of_a_new_partition(self, kafka: Broker, topics: Make) -> None:
        # Given a group that began at the end of its topic
        names = made(topics, versions=3)
        produce(kafka.address, names["content"], events(5))
        given = given_for(kafka, names, start="latest")
        with running(given, Trivial()):
            wait_until(lambda: offsets(given) == [(5, 5)], SECONDS, "a group at the end")
        # When records come into new partitions before any worker knows these
        grow(kafka, names["content"], 3)
        for partition in (1, 2):
            produce(kafka.address, names["content"], events(10, f"p{partition}-"), partition)
        # Then none of them is skipped
        with running(given, Trivial()):
            until_all_out(kafka.address, names, 20, SECONDS)
        assert outcome(kafka.address, names) == {(partition, at): 1 for partition in (1, 2) for at in range(10)}

    @PROTOCOLS
    def test_one_without_its_partition_of_versions_waits_for_it_and_holds_up_no_other(
        self, kafka: Broker, topics: Make, monkeypatch: pytest.MonkeyPatch, protocol: str
    ) -> None:
        monkeypatch.setattr(state_topic, "LACKING_SECONDS", 0.2)
        names = made(topics, content=2, versions=2)
        given = given_for(kafka, names, group_protocol=protocol)
        with running(given, Trivial()) as run:
            run.until_ready(SECONDS)
            # When content gets two partitions more, and versions none
            grow(kafka, names["content"], 4)
            for partition in range(4):
                produce(kafka.address, names["content"], [(b"a", event("a", version=2), [])], partition)
            # Then two partitions continue, and two wait and report the reason
            until_all_out(kafka.address, names, 2, SECONDS)
            wait_until(lambda: run.error or "content:3 waits" in words(run, names), SECONDS, "a word about it")
            assert f"topic {names['versions']} has no partition 3, `tagbus topics create --mend` adds it" in words(run)
            assert not run.worker.ready()
            assert set(outcome(kafka.address, names)) == {(0, 0), (1, 0)}
            # When it is mended, then they resume
            grow(kafka, names["versions"], 4)
            until_all_out(kafka.address, names, 4, SECONDS)
            run.until_ready(SECONDS)
            # And published versions count in them
            produce(kafka.address, names["content"], [(b"a", event("a", version=1), [])], 3)
            until_all_out(kafka.address, names, 5, SECONDS)
        assert outcome(kafka.address, names).total() == 5
        (letter,) = consume_all(kafka.address, names["dead_letters"])
        assert ("__streams.errors.exception", b"Stale") in (letter.headers() or [])


def words(run: Running, names: Names | None = None) -> str:
    """What the worker waits for, its topics by their usual names where `names` are given."""
    said = "; ".join(run.worker.problems())
    for word, name in (names or {}).items():
        said = said.replace(name, word)
    return said


class TestATopicIsDeleted:
    @pytest.mark.parametrize(
        ("delivery", "word"),
        [
            ("exactly_once", "dead_letters"),
            ("exactly_once", "tagged"),
            ("exactly_once", "versions"),
            ("at_least_once", "dead_letters"),
        ],
    )
    def test_its_results_wait_until_it_is_there_again(
        self, kafka: Broker, topics: Make, delivery: str, word: str
    ) -> None:
        names = made(topics)
        given = given_for(kafka, names, delivery=delivery)
        first = [(b"a", event("a", version=1), []), (b"x", b"{", [])]
        second = [(b"b", event("b", version=1), []), (b"y", b"{", [])]
        with running(given, Trivial()) as run:
            produce(kafka.address, names["content"], first)
            until_all_out(kafka.address, names, 2, SECONDS)
            # When a topic that results go to is deleted, and more comes
            delete(kafka, names[word])
            produce(kafka.address, names["content"], second)
            # Then the worker holds its partitions, is not ready, and says which topic it is
            wait_until(lambda: run.error or word in words(run, names), SECONDS, "a word about it")
            assert words(run, names) == (
                f"results wait for topic {word}, which does not exist: `tagbus topics create` creates it"
            )
            assert not run.worker.ready()
            # When it is there again, then all comes out
            create_topics(kafka.address, {names[word]: 1})
            until_all_out(kafka.address, names, 4 if word == "versions" else 3, SECONDS)
            wait_until(lambda: run.error or offsets(given) == [(4, 4)], SECONDS, "the commit of all")
            run.until_ready(SECONDS)
        if delivery == "exactly_once":
            lost = {"dead_letters": 1, "tagged": 0, "versions": None}[word]
            assert outcome(kafka.address, names) == {(0, at): 1 for at in range(4) if at != lost}


def test_a_group_whose_members_have_another_assignor_is_named(kafka: Broker, topics: Make) -> None:
    names = made(topics)
    given = given_for(kafka, names)
    other = Consumer(
        {
            "bootstrap.servers": kafka.address,
            "group.id": given.kafka.group,
            "client.id": "somebody-else",
            "partition.assignment.strategy": "range",
        }
    )
    try:
        other.subscribe([names["content"]])
        wait_until(lambda: other.poll(0.1) or other.assignment(), SECONDS, "another member")
        run = Running(given, Trivial())
        wait_until(lambda: other.poll(0.1) or run.ended(), SECONDS, "the end of the worker")
    finally:
        other.close()
    assert isinstance(run.error, UserError), run.error
    assert str(run.error).startswith(
        f"group {given.kafka.group} has members with the assignor range (somebody-else at 127.0.0.1), and this worker "
        "has cooperative-sticky (INCONSISTENT_GROUP_PROTOCOL): stop them, "
    )


class TestMarkers:
    def transaction(self, kafka: Broker, name: str, *, commit: bool = True) -> None:
        producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": unique("upstream")})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(name, event("t"), b"t")
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)

    @pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
    def test_the_lag_of_the_group_becomes_0_behind_them(self, kafka: Broker, topics: Make, delivery: str) -> None:
        names = made(topics)
        given = given_for(kafka, names, delivery=delivery)
        with running(given, Trivial()):
            # A record, its marker, a record that is taken back, and the marker of that.
            self.transaction(kafka, names["content"])
            self.transaction(kafka, names["content"], commit=False)
            wait_until(lambda: offsets(given) == [(4, 4)], SECONDS, "no lag")
            produce(kafka.address, names["content"], events(1))
            wait_until(lambda: offsets(given) == [(5, 5)], SECONDS, "no lag after another record")
        assert outcome(kafka.address, names) == {(0, 0): 1, (0, 4): 1}

    def test_what_a_group_has_left_behind_is_passed_over_at_its_next_start(self, kafka: Broker, topics: Make) -> None:
        names = made(topics, content=2, versions=2)
        given = given_for(kafka, names)
        self.transaction(kafka, names["content"])
        (place,) = [number for number, (_, end) in enumerate(offsets(given)) if end]
        consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": given.kafka.group})
        consumer.commit(offsets=[TopicPartition(names["content"], place, 1)], asynchronous=False)
        consumer.close()
        with running(given, Trivial()):
            wait_until(lambda: offsets(given)[place] == (2, 2), SECONDS, "no lag")
        # A partition without any offset still has none.
        assert offsets(given)[1 - place][0] < 0
