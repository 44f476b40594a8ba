"""Workers that share a topic: 1, 2 and 4 of tagbus against as many bare loops.

    python bench/scaling.py [--out FILE] [--workers 1 2 4] [--work MS ...] [--rounds 3] [--events 120000]

A topic of 4 partitions with 1 kB events, one group. All processes have joined and warmed up, and are paused (SIGSTOP)
while the events are produced. Then the clock runs from SIGCONT to the last result that a read_committed reader sees.
tagbus and the bare loop take turns for three rounds (--rounds), because the speed of the machine drifts: a figure is
the median over the turns, a ratio the median of the ratios within each round. `scaling` is the rate over that of one
worker. The broker and the reader run on the same cores (`cores` in the file): more workers than cores gain nothing here
unless they wait, as they do with 50 ms of work per 500 events, and what counts is the ratio to the loops.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tagbus.stream.cli.create import create_all
from tagbus.stream.config import KafkaSettings, Settings, TopicSettings
from tagbus.stream.local.apache import ApacheKafka

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

from bus import EVENT_BYTES, PARTITIONS, START_SECONDS, WARM, event, over  # noqa: E402
from harness import Failed, Process, Reader, Topics  # noqa: E402
from spec import BATCH, COMMIT_EVERY, Guarantee, Spec  # noqa: E402

SCRIPTS = {"tagbus": "tagbus_worker.py", "bare loop": "bare_loop.py"}
MEASURE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one turn; CPU of all its workers."""

    events_per_second: float
    cpu_seconds_per_10000: float
    broker_cpu_seconds_per_10000: float


@dataclass(slots=True)
class Row:
    """A number of processes of one kind at one amount of work."""

    name: str
    workers: int
    work_ms: float
    turns: list[Turn] = field(default_factory=list)
    duplicated: int = 0
    lost: int = 0

    def rates(self) -> list[float]:
        return [turn.events_per_second for turn in self.turns]

    def report(self) -> dict[str, object]:
        return {"events_per_second": statistics.median(self.rates()), **asdict(self)}


def measure(broker: ApacheKafka, row: Row, guarantee: Guarantee, count: int) -> None:
    """One turn: the workers of a row and `count` events. Raises Failed."""
    with Topics(broker.address, PARTITIONS) as topics, ExitStack() as stack:
        spec = Spec(broker.address, topics.group, topics.content, topics.tagged, guarantee, row.work_ms)
        reader = stack.enter_context(Reader(spec, PARTITIONS))
        command = [sys.executable, str(HERE / "peers" / SCRIPTS[row.name])]
        workers = [
            stack.enter_context(Process(command, replace(spec, instance=str(number)))) for number in range(row.workers)
        ]
        joined(spec, workers)
        topics.fill(map(event, range(WARM)))
        if reader.until(WARM, START_SECONDS, workers[0]) is None:
            raise Failed(f"{len(reader.messages)} of {WARM} results within {START_SECONDS:.0f} s")
        signalled(workers, signal.SIGSTOP)
        topics.fill(map(event, range(WARM, WARM + count)))
        cpu, broker_cpu = cpu_seconds(workers), broker.cpu_seconds()
        start = time.monotonic()
        signalled(workers, signal.SIGCONT)
        end = reader.until(WARM + count, MEASURE_SECONDS, workers[0])
        if end is None:
            raise Failed(f"{len(reader.messages) - WARM} of {count} results within {MEASURE_SECONDS:.0f} s")
        row.turns.append(
            Turn(
                round(count / (end - start), 1),
                round((cpu_seconds(workers) - cpu) / count * 10_000, 3),
                round((broker.cpu_seconds() - broker_cpu) / count * 10_000, 3),
            )
        )
        while reader.read(0.5):
            pass
        duplicated, lost = reader.duplicated_and_lost(WARM + count)
        row.duplicated, row.lost = row.duplicated + duplicated, row.lost + lost


def joined(spec: Spec, workers: Sequence[Process]) -> None:
    """Wait until each worker has as many partitions as any other, or one more. Raises Failed."""
    admin = AdminClient({"bootstrap.servers": spec.brokers})
    least, end = PARTITIONS // len(workers), time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        for worker in workers:
            worker.check()
        time.sleep(0.2)
        try:
            group = admin.describe_consumer_groups([spec.group], request_timeout=10)[spec.group].result()
        except KafkaException:
            # The broker creates the offsets topic at the first request for a group.
            continue
        shares = [len(member.assignment.topic_partitions) for member in group.members]
        settled = group.state.name == "STABLE" and len(shares) == len(workers) and sum(shares) == PARTITIONS
        if settled and min(shares) >= least:
            return
    raise Failed(f"{len(workers)} workers did not share {PARTITIONS} partitions within {START_SECONDS:.0f} s")


def signalled(workers: Sequence[Process], number: signal.Signals) -> None:
    for worker in workers:
        os.kill(worker.pid, number)


def cpu_seconds(workers: Sequence[Process]) -> float:
    return sum(worker.cpu_seconds() for worker in workers)


def ratios(rows: Sequence[Row]) -> dict[str, object]:
    """Return for each amount of work and number of workers: tagbus over the bare loops, and each over one worker."""
    by = {(row.name, row.work_ms, row.workers): row.rates() for row in rows}
    found: dict[str, object] = {}
    for work in sorted({row.work_ms for row in rows}):
        numbers = sorted({row.workers for row in rows})
        found[f"work_{work:g}_ms"] = {
            "tagbus_over_bare_loops": {n: over(by["tagbus", work, n], by["bare loop", work, n]) for n in numbers},
            "scaling": {
                name: {n: over(by[name, work, n], by[name, work, numbers[0]]) for n in numbers} for name in SCRIPTS
            },
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scaling.json")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4], help=f"at most {PARTITIONS}")
    parser.add_argument("--work", nargs="*", type=float, default=[0.0, 50.0], help="ms per 500 events")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each row")
    parser.add_argument("--events", type=int, default=120_000)
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once")
    given = parser.parse_args()
    started = time.monotonic()
    rows: list[Row] = []
    with ApacheKafka() as broker:
        create_all(Settings(kafka=KafkaSettings(brokers=broker.address), topics=TopicSettings(partitions=PARTITIONS)))
        measure(broker, Row("bare loop", 1, 0.0), given.guarantee, given.events)  # the JVM's warm-up
        for work in given.work:
            some = [Row(name, number, work) for number in given.workers for name in SCRIPTS]
            for _ in range(given.rounds):
                for row in some:
                    measure(broker, row, given.guarantee, given.events)
                    print(row.report(), file=sys.stderr, flush=True)
            rows += some
    report = {
        **ratios(rows),
        "rows": [row.report() for row in rows],
        "guarantee": given.guarantee,
        "events": given.events,
        "event_bytes": EVENT_BYTES,
        "partitions": PARTITIONS,
        "batch": BATCH,
        "commit_every": COMMIT_EVERY,
        "rounds": given.rounds,
        "cores": os.cpu_count(),
        "note": "workers, broker and reader share the cores: what waits for a tagger scales, CPU does not",
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - started),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
