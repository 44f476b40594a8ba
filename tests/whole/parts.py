"""All parts of tagbus on this machine, as production has them: each can be killed, and each comes back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from confluent_kafka import Consumer, TopicPartition

from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.cli.create import create_all
from tagbus.stream.cli.demo.judge import DemoJudge
from tagbus.stream.config import BudgetSettings, LlmSettings, Settings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.child import Child
from tagbus.stream.local.judges import DeciderServer
from tagbus.stream.local.qdrant import QdrantServer
from tagbus.stream.local.triton import TritonServer
from tagbus.stream.local.worker import LocalWorker
from tests.bus.harness import origins
from tests.cli.harness import cut
from tests.kafka.recount import recount
from tests.kafka.views_log import Replica, path_of, recommended, replicas
from tests.support import produce, unique, wait_until

Part = Literal["worker", "indexer", "views", "decider", "triton", "qdrant", "kafka"]
SECONDS = 240.0
PARTITIONS = 2
# A member that was killed is missed for so long.
MEMBER = {"TAGBUS_KAFKA__MEMBERSHIP": "static", "TAGBUS_KAFKA__SESSION_SECONDS": "10"}


@dataclass
class Kept:
    """A `tagbus` process that is started again when it has ended, as an orchestrator does."""

    settings: Settings
    command: Literal["run", "index"]
    variables: Mapping[str, str]
    stack: ExitStack = field(default_factory=ExitStack)
    process: LocalWorker | None = None

    def start(self) -> LocalWorker:
        self.stack.close()
        self.process = self.stack.enter_context(LocalWorker(self.settings, self.variables, self.command))
        return self.process

    def kill(self) -> None:
        assert self.process is not None
        self.process.process.kill()
        self.process.process.wait()

    def keep(self) -> None:
        if self.process is not None and self.process.process.poll() is not None:
            self.start()


class Outcomes:
    """The inputs that have come out, by a reader of committed records."""

    def __init__(self, given: Settings) -> None:
        self.found: set[tuple[int, int]] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": given.kafka.brokers,
                "group.id": unique("watch"),
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        names = (given.topics.tagged, given.topics.dead_letters)
        self._consumer.assign([TopicPartition(name, each, 0) for name in names for each in range(PARTITIONS)])

    def count(self) -> int:
        self.found.update(origins(one for one in self._consumer.consume(500, 0.05) if not one.error()))
        return len(self.found)

    def close(self) -> None:
        self._consumer.close()


@dataclass
class Whole:
    """Everything, running."""

    settings: Settings
    servers: Mapping[Part, Child]
    worker: Kept
    indexer: Kept
    views: Replica
    outcomes: Outcomes
    contents: Iterator[Record]
    published: int = 0

    def publish(self, count: int) -> None:
        """So many contents, and an event that is none."""
        records: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]
        records = [(one.key, one.value, []) for one in islice(self.contents, count)]
        records.append((f"broken-{self.published}".encode(), b"{", []))
        produce(self.settings.kafka.brokers, self.settings.topics.content, records)
        self.published += len(records)

    def kill(self, part: Part) -> None:
        """SIGKILL, and start it again."""
        match part:
            case "worker" | "indexer":
                kept = self.worker if part == "worker" else self.indexer
                kept.kill()
                kept.start()
            case "views":
                self.views.kill()
                self.views.start()
            case server:
                self.servers[server].kill()
                self.servers[server].restart()

    def until_out(self, count: int) -> None:
        """Wait until so many inputs have come out; what has ended is started again."""

        def out() -> bool:
            self._keep()
            return self.outcomes.count() >= count

        try:
            wait_until(out, SECONDS, f"{count} inputs that came out")
        except AssertionError as error:
            raise AssertionError(f"{error}, {len(self.outcomes.found)} did\n{self._tails()}") from None

    def until_viewed(self) -> None:
        """Wait until the views are what a plain consumer counts."""
        expected = recount(self.settings.kafka.brokers, self.settings.topics.tagged)

        def right() -> bool:
            self._keep()
            return all(self._shown("contents", one) == tags for one, tags in expected.contents.items()) and all(
                self._shown("tags", tag) == count for tag, count in expected.counts.items()
            )

        try:
            wait_until(right, SECONDS, "views as counted again")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._tails()}") from None

    def recommended(self, content: str) -> list[list[object]]:
        """The scores that each example recommender gives others for a content."""
        kafka, tagged = self.settings.kafka.brokers, self.settings.topics.tagged
        by_topic = recommended("from_topic.py", kafka, tagged, content)
        by_views = recommended("from_views.py", f"http://127.0.0.1:{self.views.port}", content)
        return [[one["score"] for one in found] for found in (by_topic, by_views)]

    def _shown(self, kind: str, key: str) -> object:
        status, body = self.views.get(path_of(kind, key))
        if status != 200:
            return status
        tags = body.get("tags")
        return {tag["id"]: tag["confidence"] for tag in tags} if isinstance(tags, list) else body["contents"]

    def _keep(self) -> None:
        self.worker.keep()
        self.indexer.keep()
        if self.views.process is not None and self.views.process.process.poll() is not None:
            self.views.start()

    def _tails(self) -> str:
        processes = {"worker": self.worker.process, "indexer": self.indexer.process, "views": self.views.process}
        return "\n".join(f"{name}:\n{one.tail()}" for name, one in processes.items() if one is not None)


@contextmanager
def whole(apache: Callable[..., ApacheKafka], folder: Path) -> Iterator[Whole]:
    """Everything that is killed and restarted, with a small memory; ready to tag."""
    with ExitStack() as stack:
        kafka, triton = stack.enter_context(apache()), stack.enter_context(TritonServer())
        qdrant, decider = stack.enter_context(QdrantServer()), stack.enter_context(DeciderServer())
        given = Settings.model_validate(
            {
                "kafka": {"brokers": kafka.address, "instance": "one"},
                "topics": {"partitions": PARTITIONS},
                "encoder": {"kind": "triton", "address": triton.address},
            }
        )
        create_all(given)
        _fill(given, folder)
        memory = {"TAGBUS_MEMORY__KIND": "server", "TAGBUS_MEMORY__URL": qdrant.url}
        judge = DemoJudge(
            "decider", LlmSettings(url=decider.url, watch_seconds=0.0), BudgetSettings(price_in=0.0), SECONDS, {}
        )
        small = {"TAGBUS_BATCH__CONTENTS": "16", "TAGBUS_KAFKA__TRANSACTION_SECONDS": "20"}
        kept = (
            Kept(given, "index", memory),
            Kept(given, "run", {**MEMBER, **memory, **small, **judge.variables({}, stack)}),
        )
        for one in kept:
            stack.callback(one.stack.close)
        (views,) = stack.enter_context(replicas(given, folder, 1))
        outcomes = Outcomes(given)
        stack.callback(outcomes.close)
        views.start()
        for one in kept:
            one.start().wait_until_ready()
        views.until_ready()
        servers: dict[Part, Child] = {"kafka": kafka, "triton": triton, "qdrant": qdrant, "decider": decider}
        yield Whole(given, servers, kept[1], kept[0], views, outcomes, _contents())


def _contents() -> Iterator[Record]:
    return (encode_record(one) for one in files.all_of(example("content.jsonl"), files.content_of))


def _fill(given: Settings, folder: Path) -> None:
    """Publish a part of the examples' tags and exemplars."""
    part = cut(folder)
    for topic, events in ((given.topics.tags, part.tags), (given.topics.exemplars, part.exemplars)):
        records = [encode_record(one) for one in events]
        produce(given.kafka.brokers, topic, [(one.key, one.value, []) for one in records])
