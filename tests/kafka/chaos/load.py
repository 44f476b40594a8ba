"""The load: contents at a steady rate, each with a header that says what must become of it.

Most are new versions of a few thousand ids. Mixed in: the same content again, contents without a version, withdrawals,
older versions that must not replace newer ones, and what can never be tagged.

An id names its partition, and stays in it when partitions are added: order is owed within a partition alone, and a
new one gets ids of its own. It names its generation too: how often the topic was created before. An offset of a topic
that was created again is no longer unique, and its results say which one they come from by their key.
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

KIND = "chaos.kind"
# `tagged` and `withdrawn` belong on the topic `tagged`, the others among the dead letters.
Kind = Literal["tagged", "withdrawn", "poison", "stale"]
# Words in a text that the fleet's tagger refuses, and that it fails at.
REFUSED = "refuse-me"
CRASHES = "crash-here"
_GENERATION = re.compile(rb"g(\d+)\.")
# Ids of each partition.
IDS = 500
# Of the time that it was held: how much is made up for.
CATCH_UP_SECONDS = 1.0
TEXT = "A text of some length that nobody reads. " * 8


class Position(NamedTuple):
    """Where an input is. `generation`: of its topic."""

    generation: int
    partition: int
    offset: int


class Input(NamedTuple):
    """What was sent, and what must become of it."""

    value: bytes | None
    kind: str


def generation(key: bytes | None) -> int:
    """Of the topic that a record with this key came from; 0 for keys of others."""
    found = _GENERATION.match(key or b"")
    return int(found[1]) if found else 0


class Script:
    """What comes next, by a seed. It knows the published version of each id, so it knows what is stale.

    `partitions` and `generation` may be changed from outside.
    """

    def __init__(self, seed: int, partitions: int) -> None:
        self.partitions = partitions
        self.generation = 0
        self._random = random.Random(seed)  # noqa: S311 - spreads load, guards nothing
        self._versions: dict[str, int] = {}
        self._newest: dict[str, bytes] = {}
        self._highest = 0

    def next(self) -> tuple[int, bytes, bytes | None, Kind]:
        """Partition, key, value and what must become of it."""
        partition = self._random.randrange(self.partitions)
        name = f"g{self.generation}.{partition}.{self._random.randrange(IDS)}"
        acts: dict[Callable[[str], tuple[bytes | None, Kind]], float] = {
            self._newer: 0.9,
            self._unversioned: 0.03,
            self._again: 0.02,
            self._withdrawn: 0.015,
            self._stale: 0.02,
            self._broken: 0.01,
            self._refused: 0.005,
            self._crashing: 0.0002,
        }
        (act,) = self._random.choices(list(acts), list(acts.values()))
        value, kind = act(name)
        return partition, name.encode(), value, kind

    def _newer(self, name: str) -> tuple[bytes, Kind]:
        self._highest += 1
        self._versions[name] = self._highest
        self._newest[name] = _event(name, version=self._highest)
        return self._newest[name], "tagged"

    def _unversioned(self, name: str) -> tuple[bytes, Kind]:
        return _event(name), "tagged"

    def _again(self, name: str) -> tuple[bytes, Kind]:
        return (self._newest[name], "tagged") if name in self._newest else self._newer(name)

    def _withdrawn(self, name: str) -> tuple[None, Kind]:
        self._newest.pop(name, None)
        return None, "withdrawn"

    def _stale(self, name: str) -> tuple[bytes, Kind]:
        if name not in self._versions:
            return self._newer(name)
        # The version that was withdrawn is stale as well.
        withdrawn = name not in self._newest
        return _event(name, version=self._random.randrange(self._versions[name] + withdrawn)), "stale"

    def _broken(self, name: str) -> tuple[bytes, Kind]:
        whole = _event(name)
        broken = [whole[: self._random.randrange(len(whole))], b"\xff" + whole, _event(name, title=7), _event("other")]
        return self._random.choice(broken), "poison"

    def _refused(self, name: str) -> tuple[bytes, Kind]:
        return _event(name, text=REFUSED), "poison"

    def _crashing(self, name: str) -> tuple[bytes, Kind]:
        return _event(name, text=CRASHES), "poison"


class Load:
    """Sends `rate` contents a second from a thread until it is stopped. `inputs` are those that the brokers have."""

    def __init__(self, address: str, topic: str, rate: float, seed: int, partitions: int) -> None:
        self.inputs: dict[Position, Input] = {}
        self.refused: list[KafkaError] = []
        self._address = address
        self._topic = topic
        self._rate = rate
        self._script = Script(seed, partitions)
        self._producer = self._client()
        # Guards the script and the producer.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def confirmed(self) -> int:
        """How many the brokers have."""
        return len(self.inputs)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait until the brokers have everything."""
        self._stop.set()
        self._thread.join(120)
        self._flush()

    def grow(self, partitions: int) -> None:
        """Send to partitions that were added, too."""
        with self._lock:
            self._flush()
            self._producer = self._client()
            self._script.partitions = partitions

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is sent meanwhile, all that was sent is confirmed, and what comes after is of a new generation."""
        with self._lock:
            self._flush()
            yield
            self._producer = self._client()
            self._script.generation += 1

    def _client(self) -> Producer:
        return Producer(
            {"bootstrap.servers": self._address, "enable.idempotence": True, "linger.ms": 20, "log_level": 0}
        )

    def _flush(self) -> None:
        assert self._producer.flush(60) == 0, "the brokers did not take the load"
        assert not self.refused, self.refused[:3]

    def _run(self) -> None:
        last, due = time.monotonic(), 0.0
        while not self._stop.is_set():
            with self._lock:
                now = time.monotonic()
                # Contents that could not be sent while the lock was held are not all sent in one burst.
                due += min(now - last, CATCH_UP_SECONDS) * self._rate
                last = now
                while due >= 1:
                    due -= 1
                    self._send()
                self._producer.poll(0)
            time.sleep(0.02)

    def _send(self) -> None:
        partition, key, value, kind = self._script.next()
        confirm = partial(self._confirm, self._script.generation, Input(value, kind))
        headers: list[tuple[str, bytes]] = [(KIND, kind.encode())]
        self._producer.produce(self._topic, value, key, partition, on_delivery=confirm, headers=headers)

    def _confirm(self, generation: int, given: Input, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused.append(error)
        else:
            self.inputs[Position(generation, message.partition() or 0, message.offset() or 0)] = given


def _event(name: str, text: str = TEXT, **fields: object) -> bytes:
    return json.dumps({"id": name, "text": text, **fields}).encode()
