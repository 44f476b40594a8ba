"""Three brokers as child processes: what one of them had is not lost with it, and none is left behind."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tagbus.stream.errors import UserError
from tagbus.stream.local.apache import ApacheKafka
from tests.kafka.cluster import ApacheCluster
from tests.support import consume_all, create_topics, unique, wait_until

pytestmark = pytest.mark.kafka
Make = Callable[..., ApacheKafka]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(apache: Make) -> Iterator[ApacheCluster]:
    with ApacheCluster() as cluster:
        yield cluster
        nodes = [(node.pid, node.folder) for node in cluster.nodes]
    assert all(gone(pid) and not folder.exists() for pid, folder in nodes)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def in_sync(address: str, topic: str) -> int:
    """The smallest number of replicas in sync of any partition."""
    partitions = AdminClient({"bootstrap.servers": address}).list_topics(topic, timeout=60).topics[topic].partitions
    return min(len(partition.isrs) for partition in partitions.values())


def test_each_of_them_knows_all_of_them_from_the_start(cluster: ApacheCluster) -> None:
    assert [node.known() for node in cluster.nodes] == [3, 3, 3]


def test_what_is_committed_while_a_broker_is_away_is_on_it_when_it_is_back(cluster: ApacheCluster) -> None:
    # Given a topic on all three
    topic = unique("tagged")
    create_topics(cluster.address, {topic: 3})
    wait_until(lambda: in_sync(cluster.address, topic) == 3, 120, "three replicas in sync")
    producer = Producer({"bootstrap.servers": cluster.address, "transactional.id": unique("t"), "log_level": 0})
    producer.init_transactions(30)
    # When one is killed, something is committed, and it comes back
    cluster.nodes[0].kill()
    producer.begin_transaction()
    for partition in range(3):
        producer.produce(topic, b"%d" % partition, partition=partition)
    producer.commit_transaction(60)
    cluster.nodes[0].restart()
    # Then it has it too
    wait_until(lambda: in_sync(cluster.address, topic) == 3, 120, "three replicas in sync")
    assert sorted(message.value() or b"" for message in consume_all(cluster.address, topic)) == [b"0", b"1", b"2"]


def test_it_is_started_once_and_has_a_size(cluster: ApacheCluster) -> None:
    with pytest.raises(UserError, match="already started"):
        cluster.start()
    with pytest.raises(UserError, match="a cluster of 0 nodes"):
        ApacheCluster(0)


def test_it_ends_with_the_process_that_started_it(apache: Make) -> None:
    script = (
        "from tests.kafka.cluster import ApacheCluster\n"
        "cluster = ApacheCluster(2)\n"
        "cluster.start()\n"
        "print(*(f'{node.pid} {node.folder}' for node in cluster.nodes), flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
        pids, folders = [int(word) for word in words[::2]], [Path(word) for word in words[1::2]]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)

        parent.send_signal(signal.SIGKILL)
        parent.wait(120)

        wait_until(lambda: all(gone(pid) for pid in pids), 120, "the end of the brokers")
        wait_until(lambda: not any(folder.exists() for folder in folders), 120, "the end of their folders")
