"""What must be true of the outcome: each input once, where it belongs, in order; and how long nothing came out."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import Consumer, Message, TopicPartition

from tests.bus.harness import origin
from tests.kafka.chaos.load import KIND
from tests.support import consume_all, unique

RecordPosition = tuple[int, int]
# Written by a worker that set a content aside because the process ended whenever it was tagged: under fire it is right.
DEADLY = b"times while it was tagged"
READ_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole comparison of what went in with what came out, under read_committed.

    `misplaced`: those that became something else than they had to. `deadly`: those set aside because the process was
    killed again and again while they were tagged. `unordered`: results of a key that stand behind a later one's.
    `changed`: dead letters whose value is not the input's, byte for byte.
    """

    sent: int
    tagged: int
    dead_lettered: int
    lost: int
    invented: int
    duplicated: int
    misplaced: int
    deadly: int
    unordered: int
    changed: int
    examples: tuple[str, ...]


def compare(address: str, names: Mapping[str, str]) -> Outcome:
    """Read all three topics to their ends."""
    given = {(_position(message)): message for message in consume_all(address, names["content"], seconds=READ_SECONDS)}
    results = consume_all(address, names["tagged"], seconds=READ_SECONDS)
    letters = consume_all(address, names["dead_letters"], seconds=READ_SECONDS)
    found = Counter(origin(message) for message in [*results, *letters])
    became = {origin(message): _became(message) for message in letters} | {
        origin(message): "withdrawn" if message.value() is None else "tagged" for message in results
    }
    known = set(given) & set(became)
    wrong = sorted(place for place in known if became[place] not in {_kind(given[place]), "deadly"})
    lost = sorted(set(given) - set(found))
    doubled = sorted(place for place, count in found.items() if count > 1)
    return Outcome(
        sent=len(given),
        tagged=len(results),
        dead_lettered=len(letters),
        lost=len(lost),
        invented=len(set(found) - set(given)),
        duplicated=found.total() - len(found),
        misplaced=len(wrong),
        deadly=sum(kind == "deadly" for kind in became.values()),
        unordered=unordered(results),
        changed=sum(letter.value() != given[origin(letter)].value() for letter in letters if origin(letter) in given),
        examples=(
            *(f"lost {place} ({_kind(given[place])})" for place in lost[:5]),
            *(f"doubled {place}" for place in doubled[:5]),
            *(f"misplaced {place}: {_kind(given[place])} became {became[place]}" for place in wrong[:5]),
        ),
    )


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

    confirmed: int


class Watch:
    """Reads what is committed as it comes, from a thread: how much is out, and the longest time without any more
    although something waits."""

    def __init__(self, address: str, names: Mapping[str, str], waiting: Waiting) -> None:
        self.longest = 0.0
        # When the longest one ended, in seconds since the start.
        self.longest_at = 0.0
        self.records = 0
        self._positions: set[RecordPosition] = set()
        self._waiting = waiting
        self._consumer = Consumer(
            {"bootstrap.servers": address, "group.id": unique("watch"), "isolation.level": "read_committed"}
            | {"enable.auto.commit": False, "fetch.wait.max.ms": 100, "log_level": 0}
        )
        topics = [names["tagged"], names["dead_letters"]]
        self._consumer.assign(
            [
                TopicPartition(topic, partition, 0)
                for topic in topics
                for partition in self._consumer.list_topics(topic, timeout=60).topics[topic].partitions
            ]
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def out(self) -> int:
        """How many different inputs have come out."""
        return len(self._positions)

    @property
    def doubled(self) -> int:
        """How many came out again."""
        return self.records - len(self._positions)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)
        self._consumer.close()

    def _run(self) -> None:
        start = last = time.monotonic()
        while not self._stop.is_set():
            idle = self._waiting.confirmed <= self.out
            messages = [message for message in self._consumer.consume(1000, 0.1) if not message.error()]
            self.records += len(messages)
            self._positions.update(origin(message) for message in messages)
            now = time.monotonic()
            if not idle and now - last > self.longest:
                self.longest, self.longest_at = now - last, now - start
            if idle or messages:
                last = now


def _position(message: Message) -> RecordPosition:
    return message.partition() or 0, message.offset() or 0


def _kind(message: Message) -> str:
    return bytes(dict(message.headers() or [])[KIND]).decode()


def _became(letter: Message) -> str:
    headers = dict(letter.headers() or [])
    if DEADLY in bytes(headers["__streams.errors.message"]):
        return "deadly"
    return "stale" if headers["__streams.errors.exception"] == b"Stale" else "poison"
