"""Topics that are deleted and created again under workers, on brokers that were restarted: the leader epochs of the old
topic are above those of the new one, which librdkafka takes for outdated metadata."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tagbus.stream.bus.consume import silence
from tagbus.stream.bus.publish import record_producer
from tagbus.stream.config import Settings
from tagbus.stream.errors import MemoryLost, OffsetLost, TagbusError, TopicRecreated
from tagbus.stream.kafka import clients, identity
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.reader import Gap, TopicReader
from tagbus.stream.local.apache import ApacheKafka
from tests.bus.harness import Running, events, running, settings
from tests.bus.taggers import Trivial
from tests.conftest import Broker
from tests.kafka.cluster import ApacheCluster
from tests.kafka.test_offsets import PROTOCOLS, recreate
from tests.support import consume_all, create_topics, produce, unique, wait_until

pytestmark = pytest.mark.kafka

WORDS = ("content", "tagged", "dead_letters", "exemplars", "feedback", "versions")
SECONDS = 180
# How many tests take topics of the lone broker.
TESTS = 6


def restart(node: ApacheKafka) -> None:
    node.stop()
    node.restart()


def topics(address: str, partitions: int = 1) -> dict[str, str]:
    names = {word: unique(word) for word in WORDS}
    create_topics(address, dict.fromkeys(names.values(), partitions))
    return names


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker notices within 0.5 s instead of 5, and waits 3 s instead of 10 and 15."""
    monkeypatch.setattr(identity, "EVERY_SECONDS", 0.5)
    monkeypatch.setattr(silence, "SILENT_SECONDS", 3.0)
    monkeypatch.setattr(record_producer, "RECREATED_SECONDS", 3.0)


@pytest.fixture(scope="module")
def made(apache: Callable[..., ApacheKafka]) -> Iterator[tuple[ApacheKafka, list[dict[str, str]]]]:
    """A broker, and the topics of each test, whose leader epochs are above 0."""
    with ApacheKafka() as node:
        names = [topics(node.address) for _ in range(TESTS)]
        restart(node)
        yield node, names


@pytest.fixture
def broker(made: tuple[ApacheKafka, list[dict[str, str]]]) -> ApacheKafka:
    return made[0]


@pytest.fixture
def names(made: tuple[ApacheKafka, list[dict[str, str]]]) -> dict[str, str]:
    return made[1].pop()


def given_for(address: str, names: Mapping[str, str], **kafka: object) -> Settings:
    return settings(address, dict(names), kafka={"out_of_range": "earliest", "transaction_seconds": 60, **kafka})


def keys(address: str, topic: str) -> list[bytes]:
    return [message.key() or b"" for message in consume_all(address, topic)]


def committed(given: Settings) -> int:
    member = clients.group_member(given, lambda _: None)
    try:
        (found,) = member.committed([TopicPartition(given.topics.content, 0)], 10)
        return int(found.offset)
    finally:
        member.close()


@PROTOCOLS
def test_a_group_that_begins_at_the_end_misses_nothing_of_a_new_topic(
    broker: ApacheKafka, names: dict[str, str], protocol: str
) -> None:
    # Given a worker that has read nothing yet
    given = given_for(broker.address, names, group_protocol=protocol, start="latest")
    run = Running(given, Trivial()).until_ready()
    wait_until(lambda: run.error or committed(given) == 0, SECONDS, "the commit of where it begins")
    # When its topic is created again, and filled before the worker notices
    recreate(Broker(broker.address, ""), names["content"])
    produce(broker.address, names["content"], events(5, "new"))
    run.join(SECONDS)
    assert isinstance(run.error, TopicRecreated), run.error
    # Then the next one reads all of it
    with running(given, Trivial()) as again:
        wait_until(lambda: again.error or committed(given) == 5, SECONDS, "the commit of what is new")
    assert keys(broker.address, names["tagged"]) == [b"new%d" % number for number in range(5)]


@PROTOCOLS
def test_a_worker_whose_client_cannot_read_the_new_topic_ends_and_the_next_one_reads_all_of_it(
    broker: ApacheKafka, names: dict[str, str], protocol: str
) -> None:
    # Given a group that would begin at the end of a topic of which it has no offset
    given = given_for(broker.address, names, group_protocol=protocol, start="latest")
    run = Running(given, Trivial()).until_ready()
    produce(broker.address, names["content"], events(20))
    wait_until(lambda: run.error or len(keys(broker.address, names["tagged"])) == 20, SECONDS, "the first results")
    # When its topic is created again, then it ends as one that is to be restarted
    recreate(Broker(broker.address, ""), names["content"])
    produce(broker.address, names["content"], events(5, "new"))
    run.join(SECONDS)
    assert isinstance(run.error, TopicRecreated), run.error
    assert run.error.exit_code == 4
    assert f"topic {names['content']} was deleted and created again" in str(run.error)
    # And the next one reads what is new from the beginning
    with running(given, Trivial()) as again:
        wait_until(lambda: again.error or committed(given) == 5, SECONDS, "the commit of what is new")
    assert keys(broker.address, names["tagged"])[20:] == [b"new%d" % number for number in range(5)]


def test_it_ends_with_code_11_where_the_setting_says_so(broker: ApacheKafka, names: dict[str, str]) -> None:
    given = given_for(broker.address, names, out_of_range="stop")
    run = Running(given, Trivial()).until_ready()
    produce(broker.address, names["content"], events(20))
    wait_until(lambda: run.error or committed(given) == 20, SECONDS, "the commit of the first")
    recreate(Broker(broker.address, ""), names["content"])
    run.join(SECONDS)
    assert isinstance(run.error, OffsetLost), run.error


def test_a_reader_of_a_memory_topic_ends(broker: ApacheKafka, names: dict[str, str]) -> None:
    given = given_for(broker.address, names)
    topic = names["exemplars"]

    def lost(gap: Gap) -> TagbusError:
        return MemoryLost(str(gap))

    async def follow(reader: TopicReader) -> None:
        async with TopicFollower(reader, [topic]) as following:
            # A message that comes says that the ids were asked for before.
            while not (await following.read(10, 0.1)).messages:
                pass
            recreate(Broker(broker.address, ""), topic)
            async with asyncio.timeout(SECONDS):
                while True:
                    await following.read(10, 0.1)

    produce(broker.address, topic, events(3))
    with pytest.raises(MemoryLost, match=f"{topic}:0 has the offsets of a new topic, not 3"):
        asyncio.run(follow(TopicReader(given.kafka, lost)))
    produce(broker.address, topic, events(3))
    with pytest.raises(TopicRecreated, match=f"topic {topic} was deleted and created again"):
        asyncio.run(follow(TopicReader(given.kafka)))


def leaders(address: str, topic: str) -> list[int]:
    found = AdminClient({"bootstrap.servers": address}).list_topics(topic, timeout=60).topics[topic].partitions
    return [found[number].leader for number in sorted(found)]


def test_a_worker_that_cannot_write_to_the_new_topic_ends_and_the_next_one_writes(
    apache: Callable[..., ApacheKafka],
) -> None:
    with ApacheCluster() as cluster:
        # Given topics of results that one broker leads, after others were away
        names = topics(cluster.address, 6)
        for node in cluster.nodes[1:]:
            restart(node)
        wait_until(lambda: len(set(leaders(cluster.address, names["tagged"]))) == 1, SECONDS, "a single leader")
        given = given_for(cluster.address, names)
        run = Running(given, Trivial()).until_ready()
        produce(cluster.address, names["content"], events(50))
        wait_until(lambda: run.error or len(keys(cluster.address, names["tagged"])) == 50, SECONDS, "the first results")
        # When the topic is created again, on other leaders
        recreate(Broker(cluster.address, ""), names["tagged"], 6)
        wait_until(lambda: spread(cluster.address, names["tagged"]), SECONDS, "other leaders")
        produce(cluster.address, names["content"], events(50, "new"))
        # Then the worker ends long before its transaction does, and nothing is lost or doubled
        run.join(SECONDS)
        assert isinstance(run.error, TopicRecreated), run.error
        assert names["tagged"] in str(run.error)
        with running(given, Trivial()) as again:
            wait_until(lambda: again.error or len(keys(cluster.address, names["tagged"])) >= 50, SECONDS, "the others")
        assert sorted(keys(cluster.address, names["tagged"])) == sorted(b"new%d" % number for number in range(50))


def spread(address: str, topic: str) -> bool:
    try:
        found = leaders(address, topic)
    except (KafkaException, KeyError):
        return False
    return len(found) == 6 and -1 not in found and len(set(found)) > 1
