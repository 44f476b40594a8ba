"""Apache Kafka with several brokers as child processes: KRaft nodes on 127.0.0.1 that replicate to each other."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.child import HOST, PORT_TRIES, free_ports
from tests.kafka.disk import Disk

# Half the heap of a lone broker: three nodes share a machine with what is tested.
HEAP = "-Xmx256m"


class _Node(ApacheKafka):
    """One of the nodes: its ports are given, for the others must know them."""

    def __init__(self, number: int, ports: tuple[int, int], cache: Path | None, settings: Mapping[str, str]) -> None:
        super().__init__(cache, {"node.id": str(number), **settings})
        self._ports = ports
        # Other ports than the given ones would be a node that the others never find: the cluster tries again instead.
        self._port_tries = 1

    def join(self, other: ApacheKafka) -> None:
        """Be of the same cluster. Called before it is started."""
        self._cluster_id = other._cluster_id

    def _place(self) -> None:
        broker, controller = self._ports
        self.address = f"{HOST}:{broker}"
        self._write(
            {
                "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.address}",
            }
        )

    def _java_options(self) -> list[str]:
        # Of two sizes the JVM takes the later one.
        return [*super()._java_options(), HEAP]


class ApacheCluster:
    """Brokers that are controllers too, three unless told otherwise; a context manager that starts and stops them.

    Topics are replicated to all of them, at most three, and a write with acks=all needs two: one may be away. `cache`
    and `settings` are as for ApacheKafka, for every node; the last one's data are on `disk`. Each node has a folder and
    a watcher of its own, so all of it goes when it is closed, and also when this process is killed.

    Entering raises UserError where Kafka cannot run here, and DependencyDown with the end of a log where a node does
    not start.
    """

    def __init__(
        self,
        size: int = 3,
        cache: Path | None = None,
        settings: Mapping[str, str] | None = None,
        disk: Disk | None = None,
    ) -> None:
        if size < 1:
            raise UserError(f"a cluster of {size} nodes is wrong, expected 1 or more")
        self._size = size
        self._cache = cache
        self._settings = dict(settings or {})
        self.disk = disk
        self.nodes: Sequence[ApacheKafka] = ()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """host:port of every node, with commas."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Start all nodes, and wait until each answers and knows the others."""
        if self.nodes:
            raise UserError("this cluster is already started; restart its nodes")
        for left in reversed(range(PORT_TRIES)):
            self.nodes = self._new()
            try:
                # None answers before most of them run.
                self._each(ApacheKafka.start)
                self._each(self._meet)
                return
            except DependencyDown as error:
                self.close()
                if ApacheKafka.taken not in str(error) or not left:
                    raise
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Kill all nodes and remove their folders. A second call does nothing."""
        # Stopped gracefully, the last node would wait 6 s for others to take its partitions, for data that is deleted.
        self._each(ApacheKafka.kill)
        self._each(ApacheKafka.close)
        self.nodes = ()

    def _new(self) -> Sequence[ApacheKafka]:
        ports = free_ports(2 * self._size)
        pairs = list(zip(ports[::2], ports[1::2], strict=True))
        copies = str(min(3, self._size))
        needed = str(min(2, self._size))
        shared = {
            "controller.quorum.voters": ",".join(f"{n}@{HOST}:{port}" for n, (_, port) in enumerate(pairs, 1)),
            "default.replication.factor": copies,
            "min.insync.replicas": needed,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": needed,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": needed,
        }
        settings = [shared | self._settings for _ in pairs]
        if self.disk is not None and self.disk.folder is not None:
            # A folder of this try's own: a formatted one is of another cluster.
            settings[-1]["log.dirs"] = str(self.disk.folder / uuid.uuid4().hex)
        nodes = [_Node(n, pair, self._cache, own) for n, (pair, own) in enumerate(zip(pairs, settings, strict=True), 1)]
        for node in nodes:
            node.join(nodes[0])
        return nodes

    def _meet(self, node: ApacheKafka) -> None:
        """Wait until a node knows all: of one that does not yet, a client learns that the others are no brokers, and
        drops what it has asked them."""
        deadline = time.monotonic() + node.deadline_s
        while node.known() < self._size:
            if time.monotonic() > deadline:
                raise DependencyDown(f"{node.address} knows no {self._size} brokers within {node.deadline_s:g} s")
            time.sleep(0.05)

    def _each(self, act: Callable[[ApacheKafka], None]) -> None:
        """Run on all nodes concurrently. Raises the first node's error once all are done."""
        if not self.nodes:
            return
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            acts = [pool.submit(act, node) for node in self.nodes]
        for done in acts:
            done.result()
