"""Events a second, CPU and latency of tagbus, of other frameworks and of a bare loop, side by side on one broker.

    make bench-bus        python bench/bus.py [--out FILE] [--only NAME ...] [--work MS ...] [--share 1.0]

Each is one process that consumes `content` (4 partitions, 1 kB events) and produces one result an event, with the same
fields and with headers that name its source. The tagger does nothing, or takes 50 ms for 500 events. All have lz4,
5 ms of linger, acks=all, and a commit every 2,000 events or 0.1 s (bench/peers/spec.py).

A run of one: its events are there before it starts; the first ones warm it up; the clock runs from the last of those
to the last result, read with read_committed, for 12 s at most. Then 100 events a second come for the latency, from
produce to read_committed. Every result is counted by the source that its headers name: `duplicated` and `lost` should
be 0, for nothing fails here.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tagbus.stream.cli.topics import create_all
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
    """One of those that are compared. `events`: as many as are there; the clock stops after 12 s at most."""

    name: str
    guarantee: Guarantee
    script: str
    events: int
    ours: bool = False
    arguments: tuple[str, ...] = ()
    # Why it is not started at all.
    failed: str | None = None


def contenders() -> list[Contender]:
    """All, those that are alike side by side."""
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


@dataclass(slots=True)
class Row:
    """What was measured of one, at one amount of work."""

    name: str
    guarantee: Guarantee
    work_ms: float
    events_per_second: float | None = None
    cpu_seconds_per_10000: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    duplicated: int | None = None
    lost: int | None = None
    broker_cpu_seconds_per_10000: float | None = None
    result_bytes: float | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A process under way, and all that is around it."""

    broker: ApacheKafka
    topics: Topics
    reader: Reader
    process: Process
    row: Row


def event(number: int) -> tuple[bytes, bytes]:
    """Key and value of a content of 1 kB, of words, so that it compresses about as text does."""
    start = _RANDOM.randrange(len(_TEXT) - EVENT_BYTES)
    head = f'{{"id":"bench-{number:06d}","title":"Title {number}","text":"'
    text = _TEXT[start : start + EVENT_BYTES - len(head) - 2]
    return b"bench-%06d" % number, (head + text + '"}').encode()


def compare(broker: ApacheKafka, contender: Contender, work_ms: float, python: str, share: float) -> Row:
    """One run: throughput, then latency. One that does not do its part is reported as failed."""
    row = Row(contender.name, contender.guarantee, work_ms, failed=contender.failed)
    if row.failed is None:
        try:
            measure(broker, contender, row, sys.executable if contender.ours else python, share)
        except Failed as failure:
            row.failed = str(failure)
    return row


def measure(broker: ApacheKafka, contender: Contender, row: Row, python: str, share: float) -> None:
    """Fill in the row: one process for throughput, another for latency. Raises Failed."""
    count = int(contender.events * share)
    command = [python, str(PEERS / contender.script)]
    for part in (throughput, latency):
        with Topics(broker.address, PARTITIONS) as topics:
            spec = Spec(broker.address, topics.group, topics.content, topics.tagged, row.guarantee, row.work_ms)
            topics.fill(map(event, range(WARM + (count if part is throughput else 0))))
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
    """From the last result of the warm-up on. Returns how many events there were, None where time ran out."""
    row, seen, start = run.row, len(run.reader.messages), time.monotonic()
    cpu, broker_cpu = run.process.cpu_seconds(), run.broker.cpu_seconds()
    end = run.reader.until(WARM + count, MEASURE_SECONDS, run.process)
    seconds = (end or time.monotonic()) - start
    done = len(run.reader.messages) - seen
    if not done:
        raise Failed(f"no result within {MEASURE_SECONDS:.0f} s")
    row.events_per_second = round(done / seconds, 1)
    row.cpu_seconds_per_10000 = round((run.process.cpu_seconds() - cpu) / done * 10_000, 3)
    row.broker_cpu_seconds_per_10000 = round((run.broker.cpu_seconds() - broker_cpu) / done * 10_000, 3)
    row.result_bytes = round(run.reader.result_bytes(), 1)
    return None if end is None else WARM + count


def latency(run: Run, _: int) -> int:
    """100 events a second, each timed by its key. Returns how many events there were."""
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
    """tagbus at exactly once against the others at exactly once, for each amount of work."""

    def rate(work: float, *names: str) -> float | None:
        return max(
            (
                row.events_per_second
                for row in rows
                if row.events_per_second
                and (row.work_ms, row.guarantee) == (work, "exactly_once")
                and row.name in names
            ),
            default=None,
        )

    found: dict[str, dict[str, float | None]] = {}
    for work in sorted({row.work_ms for row in rows}):
        ours = rate(work, "tagbus")
        against = {
            "best_peer": rate(work, *FRAMEWORKS),
            "faust": rate(work, "faust"),
            "bare_loop": rate(work, "bare loop"),
            "bare_loop_of_bytes": rate(work, "bare loop of bytes"),
        }
        found[f"work_{work:g}_ms"] = {
            f"tagbus_over_{name}": round(ours / other, 2) if ours and other else None for name, other in against.items()
        }
    return found


def warm_up(broker: ApacheKafka) -> None:
    """Let the broker's JVM compile what it will run, with a bare loop that does not count."""
    row = Row("warm-up", "exactly_once", 0.0)
    measure(broker, Contender("warm-up", "exactly_once", "bare_loop.py", 100_000, ours=True), row, sys.executable, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/bus.json"))
    parser.add_argument("--peers", default=".cache/peers/bin/python", help="the python that has the other frameworks")
    parser.add_argument("--only", nargs="*", help="names of those to run")
    parser.add_argument("--work", nargs="*", type=float, default=[0.0, 50.0], help="ms for 500 events")
    parser.add_argument("--share", type=float, default=1.0, help="of the events that each is given")
    arguments = parser.parse_args()
    rows: list[Row] = []
    started = time.monotonic()
    with ApacheKafka() as broker:
        create_all(Settings(kafka=KafkaSettings(brokers=broker.address), topics=TopicSettings(partitions=PARTITIONS)))
        warm_up(broker)
        for work in arguments.work:
            for contender in contenders():
                if arguments.only is None or contender.name in arguments.only:
                    rows.append(compare(broker, contender, work, arguments.peers, arguments.share))
                    print(rows[-1], file=sys.stderr, flush=True)
    report = {
        "rows": [{name: value for name, value in asdict(row).items() if name != "failed" or value} for row in rows],
        **ratios(rows),
        "batch": BATCH,
        "commit_every": COMMIT_EVERY,
        "commit_seconds": COMMIT_SECONDS,
        "linger_ms": LINGER_MS,
        "compression": COMPRESSION,
        "event_bytes": EVENT_BYTES,
        "partitions": PARTITIONS,
        "latency_events_per_second": LATENCY_RATE,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions(),
        "seconds": round(time.monotonic() - started),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


def versions() -> dict[str, str]:
    """Of our client, and of the others as bench/peers/constraints.txt pins them."""
    pins = dict(
        line.strip().split("==") for line in (PEERS / "constraints.txt").read_text().splitlines() if "==" in line
    )
    named = ("quixstreams", "faust-streaming", "aiokafka", "faststream", "confluent-kafka")
    return {"confluent-kafka of tagbus": version("confluent-kafka"), **{name: pins[name] for name in named}}


if __name__ == "__main__":
    main()
