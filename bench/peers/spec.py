"""What every worker of the benchmark is told, and the result that each gives for an event.

It needs nothing but Python's own library, for it runs in the environment of tagbus and in that of the others.
"""

import json
import sys
from dataclasses import dataclass
from typing import Literal, Self

Guarantee = Literal["exactly_once", "at_least_once"]

# The tagger's work is for so many events, and a worker that takes batches takes so many at once.
BATCH = 500
# Contents of one transaction or commit at most, and how long one waits to fill: what tagbus does by itself.
COMMIT_EVERY = 2000
COMMIT_SECONDS = 0.1
LINGER_MS = 5
COMPRESSION = "lz4"


@dataclass(frozen=True, slots=True)
class Spec:
    """One worker: where it reads and writes, its guarantee, and how long its tagger takes for 500 events."""

    brokers: str
    group: str
    content: str
    tagged: str
    guarantee: Guarantee
    work_ms: float

    @classmethod
    def from_argv(cls) -> Self:
        """From the JSON object that is the only argument of the process."""
        return cls(**json.loads(sys.argv[1]))

    def work_seconds(self, events: int) -> float:
        """How long the tagger takes for so many."""
        return self.work_ms / 1000 * events / BATCH

    def consumer(self) -> dict[str, str | int | bool]:
        """librdkafka's settings of a consumer that commits by itself."""
        return {
            "bootstrap.servers": self.brokers,
            "group.id": self.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }

    def producer(self) -> dict[str, str | int | bool]:
        """librdkafka's settings of the producer."""
        return {"bootstrap.servers": self.brokers, **PRODUCER}


PRODUCER: dict[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": LINGER_MS,
    "compression.type": COMPRESSION,
}


def result(content: dict[str, object]) -> dict[str, object]:
    """What tagbus's tagger says of this content, as JSON's own types: the same fields, the same bytes."""
    return {
        "id": content["id"],
        "tags": [
            {
                "id": "t1",
                "name": "Tag",
                "score": 0.5,
                "confidence": 0.9,
                "stage": "recall",
                "evidence": {
                    "similarity": 0.5,
                    "votes": 0,
                    "neighbours": [],
                    "heads": None,
                    "literal": None,
                    "decided": False,
                },
            }
        ],
        "versions": {"release": "trivial", "calibration": "none", "heads": None, "ranker": None, "taxonomy": {}},
        "path": ["trivial"],
        "degraded": False,
        "time": None,
    }


def source_headers(topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    """The headers of a result: the record that it comes from."""
    return [
        ("tagbus.source.topic", topic.encode()),
        ("tagbus.source.partition", b"%d" % partition),
        ("tagbus.source.offset", b"%d" % offset),
    ]
