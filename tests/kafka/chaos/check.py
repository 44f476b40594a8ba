"""The invariants of the outcome: each input once, on the right topic, in order; and the longest gap in the output.

Deleting a topic loses its records. So only these inputs may be missing:

- `content` is deleted: those that the group had not committed by then. The others have their results.
- a topic of results is deleted: those whose result belonged on it and was committed while it went. What was committed
  before is read first and counts (`Before`); what is committed afterwards is on the new topic.

They come out at most once, and all others exactly once.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from confluent_kafka import Consumer, Message, TopicPartition

from tests.bus.harness import origin
from tests.kafka.chaos.load import KIND, Input, Position, generation
from tests.support import consume_all, unique

# Written by a worker that set a content aside because the process ended whenever it was tagged: under fire it is right.
DEADLY = b"times while it was tagged"
READ_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole comparison of what went in with what came out, under read_committed.

    `misplaced`: those that became something else than they had to. `deadly`: those set aside because the process was
    killed again and again while they were tagged. `unordered`: results of a key that stand behind a later one's.
    `changed`: dead letters whose value is not the input's, byte for byte. `gone`: those that went with a deleted topic.
    """

    sent: int
    tagged: int
    dead_lettered: int
    gone: int
    lost: int
    invented: int
    duplicated: int
    misplaced: int
    deadly: int
    unordered: int
    changed: int
    examples: tuple[str, ...]


@dataclass(slots=True)
class Before:
    """What was on topics before they were deleted. `excused`: inputs that may be missing."""

    inputs: dict[Position, Input] = field(default_factory=dict)
    results: list[Message] = field(default_factory=list)
    letters: list[Message] = field(default_factory=list)
    excused: set[Position] = field(default_factory=set)


def compare(address: str, names: Mapping[str, str], before: Before | None = None) -> Outcome:
    """Read all three topics to their ends."""
    before = before or Before()
    given = before.inputs | {
        Position(generation(message.key()), message.partition() or 0, message.offset() or 0): _input(message)
        for message in consume_all(address, names["content"], seconds=READ_SECONDS)
    }
    results = [*before.results, *consume_all(address, names["tagged"], seconds=READ_SECONDS)]
    letters = [*before.letters, *consume_all(address, names["dead_letters"], seconds=READ_SECONDS)]
    found = Counter(source(message) for message in [*results, *letters])
    became = {source(message): _became(message) for message in letters} | {
        source(message): "withdrawn" if message.value() is None else "tagged" for message in results
    }
    known = set(given) & set(became)
    wrong = sorted(place for place in known if became[place] not in {given[place].kind, "deadly"})
    missing = set(given) - set(found)
    lost = sorted(missing - before.excused)
    doubled = sorted(place for place, count in found.items() if count > 1)
    return Outcome(
        sent=len(given),
        tagged=len(results),
        dead_lettered=len(letters),
        gone=len(missing & before.excused),
        lost=len(lost),
        invented=len(set(found) - set(given)),
        duplicated=found.total() - len(found),
        misplaced=len(wrong),
        deadly=sum(kind == "deadly" for kind in became.values()),
        unordered=unordered(results),
        changed=sum(letter.value() != given[source(letter)].value for letter in letters if source(letter) in given),
        examples=(
            *(f"lost {tuple(place)} ({given[place].kind})" for place in lost[:5]),
            *(f"doubled {tuple(place)}" for place in doubled[:5]),
            *(f"misplaced {tuple(place)}: {given[place].kind} became {became[place]}" for place in wrong[:5]),
        ),
    )


def source(message: Message) -> Position:
    """The input that a result or a dead letter comes from."""
    return Position(generation(message.key()), *origin(message))


def unordered(results: Iterable[Message]) -> int:
    """Results that stand behind a later one of their key; a key's inputs are all in one partition."""
    last: dict[bytes, int] = defaultdict(lambda: -1)
    count = 0
    for message in results:
        key, (_, offset) = bytes(message.key() or b""), origin(message)
        count += offset < last[key]
        last[key] = max(offset, last[key])
    return count


class Waiting(Protocol):
    """How many inputs the brokers have."""

    @property
    def confirmed(self) -> int: ...


class Watch:
    """Reads what is committed as it comes, from a thread: how much is out, and the longest time without any more
    although something waits."""

    def __init__(self, address: str, names: Mapping[str, str], waiting: Waiting) -> None:
        self.longest = 0.0
        # When the longest one ended, in seconds since the start.
        self.longest_at = 0.0
        self.records = 0
        self.positions: set[Position] = set()
        # Inputs that are not waited for.
        self.excused: set[Position] = set()
        self._address = address
        self._waiting = waiting
        self._consumers = {topic: self._reader(topic) for topic in (names["tagged"], names["dead_letters"])}
        self._anew: SimpleQueue[str] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def out(self) -> int:
        """How many different inputs have come out, or are not waited for."""
        return len(self.positions) + len(self.excused - self.positions)

    @property
    def doubled(self) -> int:
        """How many came out again."""
        return self.records - len(self.positions)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)
        for consumer in self._consumers.values():
            consumer.close()

    def begin_again(self, topic: str) -> None:
        """Read a topic that was created again from its beginning."""
        self._anew.put(topic)

    def _reader(self, topic: str) -> Consumer:
        consumer = Consumer(
            {"bootstrap.servers": self._address, "group.id": unique("watch"), "isolation.level": "read_committed"}
            | {"enable.auto.commit": False, "fetch.wait.max.ms": 100, "log_level": 0}
        )
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        return consumer

    def _run(self) -> None:
        start = last = time.monotonic()
        while not self._stop.is_set():
            while not self._anew.empty():
                topic = self._anew.get()
                self._consumers[topic].close()
                self._consumers[topic] = self._reader(topic)
            idle = self._waiting.confirmed <= self.out
            messages = [message for one in self._consumers.values() for message in one.consume(1000, 0.05)]
            messages = [message for message in messages if not message.error()]
            self.records += len(messages)
            self.positions.update(map(source, messages))
            now = time.monotonic()
            if not idle and now - last > self.longest:
                self.longest, self.longest_at = now - last, now - start
            if idle or messages:
                last = now


def _input(message: Message) -> Input:
    return Input(message.value(), bytes(dict(message.headers() or [])[KIND]).decode())


def _became(letter: Message) -> str:
    headers = dict(letter.headers() or [])
    if DEADLY in bytes(headers["__streams.errors.message"]):
        return "deadly"
    return "stale" if headers["__streams.errors.exception"] == b"Stale" else "poison"
