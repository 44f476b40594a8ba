"""A worker runs any processor: here one that counts words, besides the tagging one. On Apache Kafka."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from tagbus.stream.bus.process.dead_letters import DeadLetterTopic
from tagbus.stream.bus.processor import Batch, Outgoing, Processor, RecordOutcome, Source, Stall, WorkerTopics
from tagbus.stream.bus.worker import Worker
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import read_dead_letter, source_headers
from tagbus.stream.errors import FieldError, InvalidEvent, UserError
from tagbus.stream.kafka.message import Partition
from tests.bus.harness import RunningWorker, settings
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

Names = dict[str, str]
Make = Callable[[Mapping[str, Layout]], Names]


class WordCount(Processor):
    """Turns a record of words into their number. One without words is a dead letter."""

    def __init__(self, names: Names) -> None:
        self.topics = WorkerTopics(names["texts"], (names["counts"],), names["rejects"])
        self._rejects = DeadLetterTopic(names["rejects"], 1_000_000)

    async def process(self, batch: Batch, stall: Stall) -> list[RecordOutcome]:
        return [self._outcome(source) for source in batch.sources]

    def _outcome(self, source: Source) -> RecordOutcome:
        words = (source.record.value or b"").split()
        if not words:
            return self._rejects.letter(source, InvalidEvent("count", (FieldError("value", "nothing", "words"),)))
        headers = source_headers(source.topic, source.partition, source.offset)
        out = Outgoing(self.topics.results[0], source.record.key, b"%d" % len(words), headers)
        return RecordOutcome("counted", (out,))


class Careful(WordCount):
    """Needs its partitions before it begins, and counts commits."""

    def __init__(self, names: Names) -> None:
        super().__init__(names)
        self.calls: list[str] = []
        self.asked: Counter[Partition] = Counter()
        self.committed: Counter[str] = Counter()

    def prepare(self) -> None:
        self.calls.append("prepare")

    def assign(self, partitions: Iterable[Partition]) -> None:
        self.calls.append(f"assign {len(list(partitions))}")

    def ready(self, partition: Partition) -> bool:
        self.asked[partition] += 1
        return self.asked[partition] > 3

    def revoke(self, partitions: Iterable[Partition]) -> None:
        self.calls.append(f"revoke {len(list(partitions))}")

    def published(self, batch: Batch, outcomes: Sequence[RecordOutcome]) -> None:
        self.committed.update(outcome.kind for outcome in outcomes)
        assert len(outcomes) == len(batch.sources)

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def names(topics: Make) -> Names:
    made = topics({"content": 2, "tagged": 1, "dead_letters": 1})
    return {"texts": made["content"], "counts": made["tagged"], "rejects": made["dead_letters"]}


def run(given: Settings, names: Names, processor: WordCount, count: int) -> None:
    """Run a worker until `count` records are published."""
    worker = RunningWorker(Worker(given, processor))

    def out() -> int:
        return sum(len(consume_all(given.kafka.brokers, names[topic])) for topic in ("counts", "rejects"))

    wait_until(lambda: worker.error or out() == count, 120, "all to come out")
    worker.worker.stop()
    worker.join()
    assert worker.error is None


def test_results_and_dead_letters_come_out_once_with_their_source(kafka: Broker, names: Names) -> None:
    texts = [(b"%d" % number, b"word " * number, []) for number in range(50)]
    produce(kafka.address, names["texts"], texts)
    given = settings(kafka.address)
    run(given, names, WordCount(names), 50)
    counts = consume_all(kafka.address, names["counts"])
    assert {message.key(): message.value() for message in counts} == {b"%d" % n: b"%d" % n for n in range(1, 50)}
    (reject,) = consume_all(kafka.address, names["rejects"])
    letter = read_dead_letter([*(reject.headers() or [])])
    assert (letter.topic, letter.exception, letter.stage) == (names["texts"], "InvalidEvent", "count")
    # And a later worker resumes where this one ended
    produce(kafka.address, names["texts"], [(b"next", b"one", [])])
    run(given, names, WordCount(names), 51)
    assert consume_all(kafka.address, names["counts"])[-1].key() == b"next"


def test_it_follows_its_partitions_and_commits(kafka: Broker, names: Names) -> None:
    produce(kafka.address, names["texts"], [(b"k", b"a word", []), (b"k", b"", [])])
    processor = Careful(names)
    run(settings(kafka.address), names, processor, 2)
    assert processor.calls[:2] == ["prepare", "assign 2"]
    assert set(processor.calls[2:]) == {"revoke 2", "close"}
    assert processor.committed == {"counted": 1, "dead_lettered": 1}


def test_a_state_topic_with_too_few_partitions_is_named(kafka: Broker, names: Names) -> None:
    processor = WordCount(names)
    processor.topics = WorkerTopics(names["texts"], (names["counts"],), names["rejects"], (names["counts"],))
    worker = RunningWorker(Worker(settings(kafka.address), processor))
    worker.join()
    assert isinstance(worker.error, UserError)
    assert f"topic {names['counts']} has 1 partitions, expected at least the 2 of" in str(worker.error)
