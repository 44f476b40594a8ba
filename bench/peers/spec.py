"""The parameters of every worker of the benchmark, and the result that each produces for an event.

Standard library only: it runs in the environment of tagbus and in that of the other frameworks.
"""

import json
import sys
from dataclasses import dataclass
from typing import Literal, Self

Guarantee = Literal["exactly_once", "at_least_once"]

# Batch size of workers that take batches, and the number of events that `work_ms` is for.
BATCH = 500
# Most contents of a transaction or commit, and how long it waits to fill: the defaults of tagbus.
COMMIT_EVERY = 2000
COMMIT_SECONDS = 0.1
LINGER_MS = 5
COMPRESSION = "lz4"


@dataclass(frozen=True, slots=True)
class Spec:
    """One worker: input and output, guarantee, and how long its tagger takes for 500 events.

    `instance`: its name among the workers of its group. `versions`: the topic that tagbus keeps versions on.
    """

    brokers: str
    group: str
    content: str
    tagged: str
    guarantee: Guarantee
    work_ms: float
    instance: str = "one"
    versions: str = "content.versions"

    @classmethod
    def from_argv(cls) -> Self:
        """Read the JSON object in the first argument of the process."""
        return cls(**json.loads(sys.argv[1]))

    def work_seconds(self, events: int) -> float:
        """How long the tagger takes for `events` events."""
        return self.work_ms / 1000 * events / BATCH

    def consumer(self) -> dict[str, str | int | bool]:
        """librdkafka settings of a consumer with manual commits."""
        return {
            "bootstrap.servers": self.brokers,
            "group.id": self.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }

    def producer(self) -> dict[str, str | int | bool]:
        """librdkafka settings of the producer."""
        return {"bootstrap.servers": self.brokers, **PRODUCER}


PRODUCER: dict[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": LINGER_MS,
    "compression.type": COMPRESSION,
}


def result(content: dict[str, object]) -> dict[str, object]:
    """The result of tagbus's tagger for this content as JSON types: same fields, same bytes."""
    return {
        "id": content["id"],
        "tags": [
            {
                "id": "t1",
                "name": "Tag",
                "names": {},
                "score": 0.5,
                "confidence": 0.9,
                "stage": "recall",
                "evidence": {
                    "similarity": 0.5,
                    "votes": 0,
                    "neighbours": [],
                    "scores": {},
                    "matched": {},
                    "passage": None,
                    "decided": False,
                },
            }
        ],
        "versions": {
            "release": "trivial",
            "taxonomy": {},
            "components": {},
            "calibration": "none",
            "prompt": None,
            "llm": None,
        },
        "path": ["trivial"],
        "degraded": [],
        "usage": None,
        "scopes": [],
        "time": None,
    }


def source_headers(topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    """Headers that name the source record of a result."""
    return [
        ("tagbus.source.topic", topic.encode()),
        ("tagbus.source.partition", b"%d" % partition),
        ("tagbus.source.offset", b"%d" % offset),
    ]
