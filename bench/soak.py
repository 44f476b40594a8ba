"""A worker at full load for half an hour: memory, start and stop.

    python bench/soak.py [--minutes 30] [--tags 25000] [--data ../shared/data/yso-titles]

`tagbus run` on Apache Kafka, with a snapshot of --tags tags from bench/in_force.py. A content waits before the start:
`start_to_first_commit_seconds` is from the start of the process until its result is read under read_committed. Then a
thousand contents wait at any time. The resident memory is read every five seconds; after the first sixth of the time,
at most five minutes, a line is fitted to it. At the end SIGTERM is sent at full load; a second worker tags the rest.
Titles are those of test.tsv, repeated with new ids; without the data folder, those of the examples.

Writes bench/results/soak.json. Exits with code 1 if memory grows by more than 1 MB a minute, a start takes more than
60 s, a stop takes longer than batch.drain_seconds, or a content does not have exactly one result.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from in_force import prepared
from paced import Load, titles

from tagbus.stream.cli.create import create_all
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.worker import LocalWorker

RESULTS = Path(__file__).parent / "results" / "soak.json"
EVERY_SECONDS = 5.0
START_SECONDS, MOST_MB_A_MINUTE = 60.0, 1.0
# Records already read need not stay on the disk for the whole run.
BROKER = {
    "log.segment.bytes": "50000000",
    "log.retention.bytes": "100000000",
    "log.retention.check.interval.ms": "5000",
}
Report = dict[str, float | int | str]


def rss_mb(process: int) -> float:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    (found,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return found / 1024


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return MB per minute, by least squares over (seconds, MB)."""
    seconds, mb = np.array(samples).T
    return float(np.polyfit(seconds / 60, mb, 1)[0])


def first_commit(load: Load, started: float) -> float:
    """Measure the seconds from the start of the worker until the waiting content has its result."""
    load.drain()
    return time.monotonic() - started


def held(load: Load, process: int, minutes: float) -> Report:
    """Run at full load for the given time, and measure the memory."""
    begun = time.monotonic()
    warm = begun + min(300.0, minutes * 10)
    samples: list[tuple[float, float]] = []
    due, first = begun, load.sent
    while (now := time.monotonic()) < begun + 60 * minutes:
        load.fill()
        load.read()
        if now >= due:
            samples.append((now, rss_mb(process)))
            due += EVERY_SECONDS
    after = [one for one in samples if one[0] >= warm]
    return {
        "contents": load.sent - first,
        "contents_per_second": round((load.sent - first) / (time.monotonic() - begun), 1),
        "rss_mb_after_warm_up": round(after[0][1], 1),
        "rss_mb_end": round(after[-1][1], 1),
        "rss_mb_highest": round(max(mb for _, mb in samples), 1),
        "samples": len(after),
        "mb_a_minute": round(slope(after), 3),
    }


def ended(load: Load, worker: LocalWorker) -> Report:
    """Send SIGTERM at full load, and measure the time until the process has exited."""
    load.fill()
    begun = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    while worker.process.poll() is None:
        load.read()
    if worker.process.returncode:
        raise SystemExit(f"the worker ended with code {worker.process.returncode}:\n{worker.tail()}")
    return {"sigterm_to_exit_seconds": round(time.monotonic() - begun, 2), "left_for_the_next": load.waiting}


def soaked(settings: Settings, contents: Sequence[Content], minutes: float) -> Report:
    extra = {"TAGBUS_RELEASES__FOLDER": str(settings.releases.folder)}
    with Load(settings, contents) as load:
        load.fill(1)
        started = time.monotonic()
        with LocalWorker(settings, extra) as worker:
            first = first_commit(load, started)
            report = held(load, worker.process.pid, minutes)
            report |= ended(load, worker)
        with LocalWorker(settings, extra) as worker:
            worker.wait_until_ready()
            load.drain()
            worker.stop()
        # Duplicates have arrived by now.
        while load.read():
            pass
        return {
            "start_to_first_commit_seconds": round(first, 2),
            **report,
            "lost": load.waiting,
            "doubled": load.doubled,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tags", type=int, default=25_000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/yso-titles"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    asked.vectors, asked.memory = (), "exact"
    _, contents = titles(asked.data, 10_000)
    with tempfile.TemporaryDirectory() as folder, ApacheKafka(settings=BROKER) as broker:
        settings = prepared(asked, asked.tags, Path(folder))
        settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"brokers": broker.address})})
        create_all(settings)
        drain = settings.batch.drain_seconds
        report: Report = {"minutes": asked.minutes, "tags": asked.tags, "drain_seconds": drain}
        report |= soaked(settings, contents, asked.minutes)
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    right = (
        float(report["mb_a_minute"]) <= MOST_MB_A_MINUTE
        and float(report["start_to_first_commit_seconds"]) <= START_SECONDS
        and float(report["sigterm_to_exit_seconds"]) <= drain
        and not report["lost"]
        and not report["doubled"]
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
