"""A large import on Apache Kafka that is killed in mid-write: run again, it publishes the rest."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tagbus.stream.contract.events import Tag
from tests.cli.harness import environment, process, write
from tests.conftest import Broker
from tests.support import Layout, consume_all, unique, wait_until

COUNT = 20_000
PARTITIONS = 3


def ends(consumer: Consumer, topic: str) -> int:
    """The records of a topic."""
    return sum(
        consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=60)[1] for number in range(PARTITIONS)
    )


def test_an_import_that_is_killed_publishes_the_rest_when_it_is_run_again(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], tmp_path: Path
) -> None:
    topic = topics({"tags": PARTITIONS})["tags"]
    path = write(tmp_path / "tags.jsonl", [Tag(id=f"t{number}", name=f"tag {number}") for number in range(COUNT)])
    # Small batches, so that there is a middle to be killed in.
    slow = {"KAFKA__OPTIONS": '{"batch.num.messages": "1", "max.in.flight": "1"}'}
    settings = {"KAFKA__BROKERS": kafka.address, "TOPICS__TAGS": topic}
    command = [sys.executable, "-m", "tagbus.stream.cli", "tags", "import", str(path)]
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": unique("ends")})
    with subprocess.Popen(command, env=environment({**settings, **slow}), stderr=subprocess.DEVNULL) as running:
        wait_until(lambda: ends(consumer, topic) > 100, 120, "some records")
        running.kill()
    there = ends(consumer, topic)
    assert there < COUNT
    answer = process("tags", "import", path, settings=settings)
    assert answer.code == 0
    found = re.fullmatch(r"(\d+) added, 0 changed, 0 retired, (\d+) unchanged\n", answer.out)
    assert found
    # What the broker had in its hands when the process was killed may come after it was counted.
    assert int(found[1]) + int(found[2]) == COUNT
    assert int(found[2]) >= there
    consumer.close()
    messages = consume_all(kafka.address, topic)
    assert len(messages) == COUNT
    assert {(message.key() or b"").decode() for message in messages} == {f"t{number}" for number in range(COUNT)}
