"""Throughput, CPU and latency of tagbus, other frameworks and a bare loop, side by side on one broker.

    make bench-bus        python bench/bus.py [--out FILE] [--only NAME ...] [--work MS ...] [--rounds 3]

Each contender is one process that consumes `content` (4 partitions, 1 kB events) and produces one result per event,
with the same fields and with headers that name the source record. The tagger does nothing, or takes 50 ms per 500
events. All contenders use lz4, 5 ms of linger, acks=all, and commit every 2,000 events or 0.1 s (bench/peers/spec.py).

A turn: the events are produced before the process starts, the first ones warm it up, and the clock runs from the last
warm-up result to the last result, read with read_committed, for at most 12 s. The contenders take turns for three
rounds (--rounds), because the speed of the machine drifts: a figure is the median over the turns, a ratio the median
of the ratios within each round. Latency is measured last, at 100 events per second, from produce to read_committed.
Results are counted by the source in their headers; no fault is injected, so `duplicated` and `lost` should be 0.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tagbus.stream.cli.create import create_all
from tagbus.stream.config import KafkaSettings, Settings, TopicSettings
from tagbus.stream.local.apache import ApacheKafka

PEERS = Path(__file__).parent / "peers"
sys.path.insert(0, str(PEERS))

from harness import Failed, Process, Reader, Topics  # noqa: E402
from spec import BATCH, COMMIT_EVERY, COMMIT_SECONDS, COMPRESSION, LINGER_MS, Guarantee, Spec  # noqa: E402

PARTITIONS = 4
EVENT_BYTES = 1000
WARM = 2 * COMMIT_EVERY
START_SECONDS = 40.0
MEASURE_SECONDS = 12.0
LATENCY_SECONDS = 10.0
LATENCY_RATE = 100
WORDS = "the sea wind stone river tower gate lamp night paper glass horse field storm bread".split()  # noqa: SIM905
FRAMEWORKS = ("quix", "faust", "faststream")
_RANDOM = random.Random(4)  # noqa: S311 no secret
_TEXT = " ".join(_RANDOM.choices(WORDS, k=200_000))


@dataclass(frozen=True, slots=True)
class Contender:
    """One process to compare. `events`: how many are produced for a turn; the clock stops after at most 12 s."""

    name: str
    guarantee: Guarantee
    script: str
    events: int
    ours: bool = False
    arguments: tuple[str, ...] = ()
    # Why it cannot run.
    failed: str | None = None


def contenders() -> list[Contender]:
    """All contenders, similar ones side by side."""
    both: tuple[Guarantee, Guarantee] = ("exactly_once", "at_least_once")
    return [
        *(Contender("bare loop", each, "bare_loop.py", 150_000, ours=True) for each in both),
        *(Contender("bare loop of bytes", each, "bare_loop.py", 150_000, True, ("bytes",)) for each in both),
        *(Contender("tagbus", each, "tagbus_worker.py", 150_000, ours=True) for each in both),
        *(Contender("quix", each, "quix_peer.py", 80_000) for each in both),
        *(Contender("faust", each, "faust_peer.py", 30_000) for each in both),
        Contender("faststream", "exactly_once", "faststream_peer.py", 0, failed="has no transactions"),
        Contender("faststream", "at_least_once", "faststream_peer.py", 50_000),
    ]


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one turn."""

    events_per_second: float
    cpu_seconds_per_10000: float
    broker_cpu_seconds_per_10000: float
    result_bytes: float


@dataclass(slots=True)
class Row:
    """The figures of one contender at one amount of work."""

    name: str
    guarantee: Guarantee
    work_ms: float
    turns: list[Turn] = field(default_factory=list)
    p50_ms: float | None = None
    p99_ms: float | None = None
    duplicated: int | None = None
    lost: int | None = None
    failed: str | None = None

    def median(self, what: str) -> float | None:
        """Median over the turns."""
        return statistics.median(float(getattr(turn, what)) for turn in self.turns) if self.turns else None

    def report(self) -> dict[str, object]:
        """The row as written to the file."""
        found = {
            "name": self.name,
            "guarantee": self.guarantee,
            "work_ms": self.work_ms,
            "events_per_second": self.median("events_per_second"),
            "cpu_seconds_per_10000": self.median("cpu_seconds_per_10000"),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "duplicated": self.duplicated,
            "lost": self.lost,
            "broker_cpu_seconds_per_10000": self.median("broker_cpu_seconds_per_10000"),
            "result_bytes": self.median("result_bytes"),
            "turns": [turn.events_per_second for turn in self.turns],
        }
        return found | ({"failed": self.failed} if self.failed else {})


@dataclass(frozen=True, slots=True)
class Run:
    """A running process and its surroundings."""

    broker: ApacheKafka
    topics: Topics
    reader: Reader
    process: Process
    row: Row


# Measures one figure of a row. Returns the number of events, None on timeout.
Part = Callable[[Run, int], int | None]


def event(number: int, fields: str = "") -> tuple[bytes, bytes]:
    """Key and value of a 1 kB content made of words, so that it compresses like text. `fields`: JSON, with a comma."""
    start = _RANDOM.randrange(len(_TEXT) - EVENT_BYTES)
    head = f'{{"id":"bench-{number:06d}","title":"Title {number}",{fields}"text":"'
    text = _TEXT[start : start + EVENT_BYTES - len(head) - 2]
    return b"bench-%06d" % number, (head + text + '"}').encode()


def compare(broker: ApacheKafka, some: Sequence[Contender], work_ms: float, python: str, rounds: int) -> list[Row]:
    """Throughput of all in turn for each round, then latency. A contender that fails is reported as failed."""
    rows = [Row(one.name, one.guarantee, work_ms, failed=one.failed) for one in some]
    for part in (*([throughput] * rounds), latency):
        for contender, row in zip(some, rows, strict=True):
            if row.failed is None:
                try:
                    measure(broker, contender, row, sys.executable if contender.ours else python, part)
                except Failed as failure:
                    row.failed = str(failure)
                print(row.report(), file=sys.stderr, flush=True)
    return rows


def measure(broker: ApacheKafka, contender: Contender, row: Row, python: str, part: Part) -> None:
    """Measure one figure of the row in a fresh process. Raises Failed."""
    command = [python, str(PEERS / contender.script)]
    count = contender.events if part is throughput else 0
    with Topics(broker.address, PARTITIONS) as topics:
        spec = Spec(broker.address, topics.group, topics.content, topics.tagged, row.guarantee, row.work_ms)
        topics.fill(map(event, range(WARM + count)))
        with Reader(spec, PARTITIONS) as reader:
            with Process(command, spec, contender.arguments) as process:
                if reader.until(WARM, START_SECONDS, process) is None:
                    raise Failed(f"{len(reader.messages)} of {WARM} results within {START_SECONDS:.0f} s")
                sent = part(Run(broker, topics, reader, process, row), count)
            while reader.read(0.5):
                pass
            duplicated, lost = reader.duplicated_and_lost(sent)
        row.duplicated, row.lost = (row.duplicated or 0) + duplicated, (row.lost or 0) + lost


def throughput(run: Run, count: int) -> int | None:
    """Measure from the last warm-up result on. Returns the number of events, None on timeout."""
    row, seen, start = run.row, len(run.reader.messages), time.monotonic()
    cpu, broker_cpu = run.process.cpu_seconds(), run.broker.cpu_seconds()
    end = run.reader.until(WARM + count, MEASURE_SECONDS, run.process)
    seconds = (end or time.monotonic()) - start
    done = len(run.reader.messages) - seen
    if not done:
        raise Failed(f"no result within {MEASURE_SECONDS:.0f} s")
    row.turns.append(
        Turn(
            round(done / seconds, 1),
            round((run.process.cpu_seconds() - cpu) / done * 10_000, 3),
            round((run.broker.cpu_seconds() - broker_cpu) / done * 10_000, 3),
            round(run.reader.result_bytes(), 1),
        )
    )
    return None if end is None else WARM + count


def latency(run: Run, _: int) -> int:
    """Produce 100 events per second and time each by its key. Returns the number of events."""
    producer, number = run.topics.producer(0), int(LATENCY_RATE * LATENCY_SECONDS)
    sent: dict[bytes, float] = {}
    took: list[float] = []
    start = time.monotonic()
    last = start + LATENCY_SECONDS + MEASURE_SECONDS
    while len(took) < number and time.monotonic() < last:
        while len(sent) < number and time.monotonic() >= start + len(sent) / LATENCY_RATE:
            key, value = event(WARM + len(sent))
            sent[key] = time.monotonic()
            producer.produce(run.topics.content, value, key)
        producer.poll(0)
        found = run.reader.read(1 / LATENCY_RATE)
        now = time.monotonic()
        took += [now - sent[key] for message in found if (key := message.key()) in sent]
        run.process.check()
    if len(took) < number:
        raise Failed(f"{len(took)} of {number} results at {LATENCY_RATE} events a second")
    cuts = statistics.quantiles(took, n=100)
    run.row.p50_ms, run.row.p99_ms = round(cuts[49] * 1000, 1), round(cuts[98] * 1000, 1)
    return WARM + number


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """tagbus over the others, all exactly once, for each amount of work."""
    found: dict[str, dict[str, float | None]] = {}
    for work in sorted({row.work_ms for row in rows}):
        turns = {
            row.name: [turn.events_per_second for turn in row.turns]
            for row in rows
            if (row.work_ms, row.guarantee) == (work, "exactly_once") and row.turns
        }
        peers = [turns[name] for name in FRAMEWORKS if name in turns]
        against = {
            "best_peer": max(peers, key=statistics.median, default=[]),
            "faust": turns.get("faust", []),
            "bare_loop": turns.get("bare loop", []),
            "bare_loop_of_bytes": turns.get("bare loop of bytes", []),
        }
        found[f"work_{work:g}_ms"] = {
            f"tagbus_over_{name}": over(turns.get("tagbus", []), others) for name, others in against.items()
        }
    return found


def over(ours: Sequence[float], others: Sequence[float]) -> float | None:
    """The median of the ratios of each round; None without a common round."""
    pairs = list(zip(ours, others, strict=False))
    return round(statistics.median(our / other for our, other in pairs), 2) if pairs else None


def warm_up(broker: ApacheKafka) -> None:
    """Warm up the broker's JVM with a bare loop that is not reported."""
    row = Row("warm-up", "exactly_once", 0.0)
    contender = Contender("warm-up", "exactly_once", "bare_loop.py", 100_000, ours=True)
    measure(broker, contender, row, sys.executable, throughput)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/bus.json"))
    parser.add_argument(
        "--peers", default=".cache/peers/bin/python", help="Python interpreter with the other frameworks"
    )
    parser.add_argument("--only", nargs="*", help="contenders to run")
    parser.add_argument("--work", nargs="*", type=float, default=[0.0, 50.0], help="ms per 500 events")
    parser.add_argument("--rounds", type=int, default=3, help="turns per contender")
    arguments = parser.parse_args()
    rows: list[Row] = []
    started = time.monotonic()
    with ApacheKafka() as broker:
        create_all(Settings(kafka=KafkaSettings(brokers=broker.address), topics=TopicSettings(partitions=PARTITIONS)))
        warm_up(broker)
        some = [one for one in contenders() if arguments.only is None or one.name in arguments.only]
        for work in arguments.work:
            rows += compare(broker, some, work, arguments.peers, arguments.rounds)
    report = {
        "rows": [row.report() for row in rows],
        **ratios(rows),
        "batch": BATCH,
        "commit_every": COMMIT_EVERY,
        "commit_seconds": COMMIT_SECONDS,
        "linger_ms": LINGER_MS,
        "compression": COMPRESSION,
        "event_bytes": EVENT_BYTES,
        "partitions": PARTITIONS,
        "latency_events_per_second": LATENCY_RATE,
        "rounds": arguments.rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions(),
        "seconds": round(time.monotonic() - started),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


def versions() -> dict[str, str]:
    """The version of our client, and those of the others as pinned in bench/peers/constraints.txt."""
    pins = dict(
        line.strip().split("==")
        for line in (PEERS / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    named = ("quixstreams", "faust-streaming", "aiokafka", "faststream", "confluent-kafka")
    return {"confluent-kafka of tagbus": version("confluent-kafka"), **{name: pins[name] for name in named}}


if __name__ == "__main__":
    main()
