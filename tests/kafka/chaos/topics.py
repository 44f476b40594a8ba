"""What an administrator does to topics under load: adds partitions, deletes one and creates it again."""

import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tagbus.stream.config import Settings
from tests.bus.harness import environment
from tests.kafka.chaos.check import Before, Watch, source
from tests.kafka.chaos.load import Load, Position
from tests.kafka.cluster import ApacheCluster
from tests.support import Layout, consume_all, create_topics, unique, wait_until

PARTITIONS = 6
# Between what is done to `content` and to the topic of its versions, or between deleting and creating. Within it every
# transaction ends that was open: its results went with the topic, and its offsets are committed or not.
PAUSE_SECONDS = 3.0
SECONDS = 60.0
# What belongs on a topic of results.
KINDS = {"tagged": frozenset({"tagged", "withdrawn"}), "dead_letters": frozenset({"poison", "stale"})}
RECREATED = ("content", *KINDS)


class Topics:
    """The topics of one run by their words. `before`: what was on those that were deleted."""

    def __init__(self, cluster: ApacheCluster) -> None:
        self.names = {
            name: unique(name) for name in ("content", "tagged", "dead_letters", "exemplars", "feedback", "versions")
        }
        self.before = Before()
        self.partitions = PARTITIONS
        self._cluster = cluster
        self._admin = AdminClient({"bootstrap.servers": cluster.address, "log_level": 0})
        create_topics(cluster.address, {name: self._layout(word) for word, name in self.names.items()})

    def grow(self, given: Settings, load: Load) -> None:
        """Add a partition to `content`, which gets records immediately, then run the command that adds it to the topic
        of versions."""
        self.partitions += 1
        content = self.names["content"]
        self._admin.create_partitions([NewPartitions(content, self.partitions)])[content].result(SECONDS)
        self._shown(content)
        load.grow(self.partitions)
        time.sleep(PAUSE_SECONDS)
        variables = environment(given) | {"TAGBUS_TOPICS__PARTITIONS": str(PARTITIONS)}
        command = [sys.executable, "-m", "tagbus.stream.cli", "topics", "create", "--mend"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self._shown(self.names["versions"])

    def recreate(self, word: str, given: Settings, load: Load, watch: Watch) -> None:
        """Delete one of RECREATED with what is in it, and create it again."""
        if word == "content":
            with load.held():
                had = self._committed(given)
                self._delete(word)
                self.before.inputs |= load.inputs
                here = self._current(load)
                waiting = {place for place in here if place.offset >= had.get(place.partition, 0)}
                # What was read already is no excuse: it must be found.
                self._excuse(watch, waiting - watch.positions)
                self._create(word)
            return
        had = self._committed(given)
        done = {place for place in self._current(load) if place.offset < had.get(place.partition, 0)}
        self._seen(done, watch)
        kept = consume_all(self._cluster.address, self.names[word])
        (self.before.results if word == "tagged" else self.before.letters).extend(kept)
        self._delete(word)
        self._create(word)
        # What is committed before the new topic is there went to the old one.
        has = self._committed(given)
        went = {
            place
            for place in self._current(load)
            if had.get(place.partition, 0) <= place.offset < has.get(place.partition, 0)
            and load.inputs[place].kind in KINDS[word]
        }
        # The watch may have read what came after `kept`, and went.
        self._excuse(watch, went - set(map(source, kept)))
        watch.begin_again(self.names[word])

    def _seen(self, done: set[Position], watch: Watch) -> None:
        """Wait until the watch has read the results of these inputs."""

        def missing() -> list[Position]:
            return sorted(done - watch.positions - watch.excused, key=str)

        try:
            wait_until(lambda: not missing(), SECONDS, "the results of what is committed")
        except AssertionError as late:
            raise AssertionError(f"{late}; missing {len(missing())} of {len(done)}: {missing()[:5]}") from None

    def _current(self, load: Load) -> list[Position]:
        every = list(load.inputs)
        newest = max(place.generation for place in every)
        return [place for place in every if place.generation == newest]

    def _excuse(self, watch: Watch, places: set[Position]) -> None:
        self.before.excused |= places
        watch.excused = watch.excused | self.before.excused

    def _committed(self, given: Settings) -> Mapping[int, int]:
        """The group's offset of each partition of `content`, where it has one."""
        consumer = Consumer({"bootstrap.servers": self._cluster.address, "group.id": given.kafka.group, "log_level": 0})
        asked = [TopicPartition(self.names["content"], number) for number in range(self.partitions)]

        def found() -> list[TopicPartition]:
            try:
                return consumer.committed(asked, 10)
            except KafkaException:
                return []

        try:
            return {one.partition: one.offset for one in wait_until(found, SECONDS, "offsets") if one.offset >= 0}
        finally:
            consumer.close()

    def _delete(self, word: str) -> None:
        name = self.names[word]
        self._admin.delete_topics([name])[name].result(SECONDS)
        for node in self._cluster.nodes:
            wait_until(partial(_gone, node.address, name), SECONDS, f"the end of {name} on {node.address}")
        time.sleep(PAUSE_SECONDS)

    def _create(self, word: str) -> None:
        create_topics(self._cluster.address, {self.names[word]: self._layout(word)})

    def _layout(self, word: str) -> Layout:
        if word in {"exemplars", "versions"}:
            return PARTITIONS, {"cleanup.policy": "compact"}
        return self.partitions if word == "content" else PARTITIONS

    def _shown(self, name: str) -> None:
        def led() -> bool:
            found = self._admin.list_topics(name, timeout=10).topics[name].partitions
            return len(found) == self.partitions and all(one.leader >= 0 for one in found.values())

        wait_until(led, SECONDS, f"{self.partitions} partitions of {name}")


def _gone(address: str, name: str) -> bool:
    """Whether the broker at this address no longer knows the topic. One that is away takes nothing."""
    try:
        return name not in AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=10).topics
    except KafkaException:
        return True
