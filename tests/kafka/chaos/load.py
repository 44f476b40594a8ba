"""The load: contents at a steady rate, each with a header that says what must become of it.

Most are new versions of a few thousand ids. Mixed in: the same content again, contents without a version, withdrawals,
older versions that must not replace newer ones, and what can never be tagged.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Literal

from confluent_kafka import KafkaError, Message, Producer

KIND = "chaos.kind"
# `tagged` and `withdrawn` belong on the topic `tagged`, the others among the dead letters.
Kind = Literal["tagged", "withdrawn", "poison", "stale"]
# Words in a text that the fleet's tagger refuses, and that it fails at.
REFUSED = "refuse-me"
CRASHES = "crash-here"
IDS = 3000
TEXT = "A text of some length that nobody reads. " * 8


class Script:
    """What comes next, by a seed. It knows the published version of each id, so it knows what is stale."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - spreads load, guards nothing
        self._versions: dict[str, int] = {}
        self._newest: dict[str, bytes] = {}
        self._highest = 0

    def next(self) -> tuple[bytes, bytes | None, Kind]:
        """Key, value and what must become of it."""
        name = f"c{self._random.randrange(IDS)}"
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
        return name.encode(), value, kind

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
    """Sends `rate` contents a second from a thread until it is stopped. `confirmed` is how many the brokers have."""

    def __init__(self, address: str, topic: str, rate: float, seed: int) -> None:
        self.confirmed = 0
        self.refused: list[KafkaError] = []
        self._topic = topic
        self._rate = rate
        self._script = Script(seed)
        self._producer = Producer(
            {"bootstrap.servers": address, "partitioner": "murmur2_random", "enable.idempotence": True}
            | {"linger.ms": 20, "log_level": 0}
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait until the brokers have everything."""
        self._stop.set()
        self._thread.join(120)
        assert self._producer.flush(60) == 0, "the brokers did not take the load"
        assert not self.refused, self.refused[:3]

    def _run(self) -> None:
        start, sent = time.monotonic(), 0
        while not self._stop.is_set():
            due = int((time.monotonic() - start) * self._rate)
            for _ in range(due - sent):
                key, value, kind = self._script.next()
                headers: list[tuple[str, bytes]] = [(KIND, kind.encode())]
                self._producer.produce(self._topic, value, key, on_delivery=self._confirm, headers=headers)
            sent = max(due, sent)
            self._producer.poll(0.02)

    def _confirm(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.refused.append(error)
        else:
            self.confirmed += 1


def _event(name: str, text: str = TEXT, **fields: object) -> bytes:
    return json.dumps({"id": name, "text": text, **fields}).encode()
