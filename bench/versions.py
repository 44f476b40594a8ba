"""The cost of versions and times: contents with one beside contents without, through the same worker.

    python bench/versions.py [--out FILE] [--rounds 3] [--events 120000] [--guarantee exactly_once at_least_once]

A content with a version or a time gets a separate record on `content.versions`, in the transaction of its result, and
is compared with the published version of its id. Measured like bench/bus.py, with a tagger that does nothing: 1 kB
events, 4 partitions, the clock from the last result of the warm-up to the last one. The kinds take turns for three
rounds (--rounds): a figure is the median over the turns, a cost the median of the ratios within each round, of rates
(`slower`) and of CPU seconds of the worker (`cpu`).
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tagbus.stream.cli.create import create_all
from tagbus.stream.config import KafkaSettings, Settings, TopicSettings
from tagbus.stream.local.apache import ApacheKafka

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

from bus import EVENT_BYTES, PARTITIONS, START_SECONDS, WARM, event, over  # noqa: E402
from harness import Failed, Process, Reader, Topics  # noqa: E402
from spec import BATCH, COMMIT_EVERY, Guarantee, Spec  # noqa: E402

KINDS = {
    "plain": "",
    "version": '"version":1,',
    "time": '"time":"2026-03-01T12:00:00Z",',
    "version and time": '"version":1,"time":"2026-03-01T12:00:00Z",',
}
MEASURE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one turn."""

    events_per_second: float
    cpu_seconds_per_10000: float
    broker_cpu_seconds_per_10000: float


@dataclass(slots=True)
class Row:
    """One kind of content at one guarantee."""

    kind: str
    guarantee: Guarantee
    turns: list[Turn] = field(default_factory=list)
    duplicated: int = 0
    lost: int = 0

    def report(self) -> dict[str, object]:
        return {"events_per_second": statistics.median(turn.events_per_second for turn in self.turns), **asdict(self)}


def measure(broker: ApacheKafka, row: Row, count: int) -> None:
    """Run one turn: a worker, a separate topic of versions and `count` events. Raises Failed."""
    with Topics(broker.address, PARTITIONS) as topics:
        versions = compacted(broker.address, f"{topics.group}-versions")
        topics.fill(map(partial(event, fields=KINDS[row.kind]), range(WARM + count)))
        spec = Spec(broker.address, topics.group, topics.content, topics.tagged, row.guarantee, 0.0, versions=versions)
        with Reader(spec, PARTITIONS) as reader:
            with Process([sys.executable, str(HERE / "peers" / "tagbus_worker.py")], spec) as process:
                if reader.until(WARM, START_SECONDS, process) is None:
                    raise Failed(f"{len(reader.messages)} of {WARM} results within {START_SECONDS:.0f} s")
                row.turns.append(turn(broker, reader, process, WARM + count))
            while reader.read(0.5):
                pass
            duplicated, lost = reader.duplicated_and_lost(WARM + count)
        row.duplicated, row.lost = row.duplicated + duplicated, row.lost + lost


def turn(broker: ApacheKafka, reader: Reader, process: Process, total: int) -> Turn:
    """Measure from the current results to the last one. Raises Failed."""
    seen, start = len(reader.messages), time.monotonic()
    cpu, broker_cpu = process.cpu_seconds(), broker.cpu_seconds()
    end = reader.until(total, MEASURE_SECONDS, process)
    if end is None:
        raise Failed(f"{len(reader.messages)} of {total} results within {MEASURE_SECONDS:.0f} s")
    done = total - seen
    return Turn(
        round(done / (end - start), 1),
        round((process.cpu_seconds() - cpu) / done * 10_000, 3),
        round((broker.cpu_seconds() - broker_cpu) / done * 10_000, 3),
    )


def compacted(brokers: str, name: str) -> str:
    """Create a compacted topic; returns its name."""
    admin = AdminClient({"bootstrap.servers": brokers})
    new = NewTopic(name, PARTITIONS, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([new], operation_timeout=30)[name].result()
    return name


def costs(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, object]]]:
    """Return for each guarantee and kind the factors of time and CPU against a plain content."""
    for guarantee in dict.fromkeys(row.guarantee for row in rows):
        of = {row.kind: row.turns for row in rows if row.guarantee == guarantee}
        rates = {kind: [one.events_per_second for one in turns] for kind, turns in of.items()}
        cpu = {kind: [one.cpu_seconds_per_10000 for one in turns] for kind, turns in of.items()}
        yield (
            guarantee,
            {
                kind: {"slower": over(rates["plain"], rates[kind]), "cpu": over(cpu[kind], cpu["plain"])}
                for kind in of
                if kind != "plain"
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "versions.json")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind")
    parser.add_argument("--events", type=int, default=120_000)
    guarantees = ["exactly_once", "at_least_once"]
    parser.add_argument("--guarantee", nargs="+", choices=guarantees, default=guarantees)
    given = parser.parse_args()
    started = time.monotonic()
    rows: list[Row] = []
    with ApacheKafka() as broker:
        create_all(Settings(kafka=KafkaSettings(brokers=broker.address), topics=TopicSettings(partitions=PARTITIONS)))
        measure(broker, Row("plain", "exactly_once"), given.events)  # the JVM's warm-up
        for guarantee in given.guarantee:
            some = [Row(kind, guarantee) for kind in KINDS]
            for _ in range(given.rounds):
                for row in some:
                    measure(broker, row, given.events)
                    print(row.report(), file=sys.stderr, flush=True)
            rows += some
    report = {
        **dict(costs(rows)),
        "rows": [row.report() for row in rows],
        "events": given.events,
        "event_bytes": EVENT_BYTES,
        "partitions": PARTITIONS,
        "batch": BATCH,
        "commit_every": COMMIT_EVERY,
        "rounds": given.rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - started),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
