"""Memory during an outage: the worker's RSS after the first minute and at the end.

    python bench/outage.py [--minutes 10]

A worker on Apache Kafka whose encoder never answers, with a backlog of ten times the limit of contents in flight, by
count and by bytes. Writes bench/results/outage.json. Goal: a ratio of at most 1.1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tagbus.stream.bus.in_flight import TOTAL
from tagbus.stream.config import Settings
from tagbus.stream.local.apache import ApacheKafka
from tests.bus.harness import PROCESS, environment, events, settings
from tests.support import create_topics, produce

RESULTS = Path(__file__).parent / "results" / "outage.json"
TOPICS = ("content", "tagged", "content.dlq", "exemplars", "feedback", "content.versions")
PARTITIONS = 4
BATCH, IN_FLIGHT, SIZE = 128, 4, 8_000
# Contents that may be in flight: batches, at the tagger or after it, times the contents of each.
LIMIT = TOTAL * IN_FLIGHT * BATCH
WAITING = 10 * LIMIT


@contextmanager
def worker(given: Settings, log: Path) -> Iterator[int]:
    """Run a worker and yield its process id. Exits if it ends during the measurement."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(PROCESS), "down"], env=environment(given), stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise SystemExit(
                f"the worker ended with code {process.returncode}:\n{log.read_text(encoding='utf-8')[-2000:]}"
            )
    finally:
        process.kill()
        process.wait()


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc reports no RSS for the worker")


def sleep_until(deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))


def main(minutes: float) -> None:
    with ApacheKafka() as broker, tempfile.TemporaryDirectory() as folder:
        create_topics(broker.address, dict.fromkeys(TOPICS, PARTITIONS))
        produce(broker.address, "content", events(WAITING, size=SIZE))
        given = settings(
            broker.address,
            kafka={"session_seconds": 45, "transaction_seconds": 60},
            batch={"contents": BATCH, "in_flight": IN_FLIGHT, "in_flight_bytes": LIMIT * SIZE},
            retry={"first_seconds": 0.1, "cap_seconds": 10},
        )
        log = Path(folder) / "log"
        started = time.monotonic()
        with worker(given, log) as pid:
            sleep_until(started + 60)
            first = rss_mb(pid)
            sleep_until(started + 60 * minutes)
            last = rss_mb(pid)
        if "the encoder does not answer" not in log.read_text(encoding="utf-8"):
            raise SystemExit("the worker never waited for its encoder")
    result = {
        "minutes": minutes,
        "rss_minute_1_mb": round(first, 1),
        "rss_end_mb": round(last, 1),
        "ratio": round(last / first, 3),
        "waiting_contents": WAITING,
        "in_flight_limit": LIMIT,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    main(parser.parse_args().minutes)
