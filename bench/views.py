"""`tagbus views`: their speed, the cost of a lost disk, and their correctness after kills.

    python bench/views.py [--part views|faust] [--out FILE] [--kills 20] [--results 5000] [--seed 7]

Apache Kafka on this machine. `events_per_second`: results (mean 2.5 tags, retags, withdrawals) on `tagged` until one
replica has them in the rows of contents and tags. `restore_seconds`: from the start of that replica without its folder
until it is ready, with the rows of `restored_results`. Then two replicas are killed in turn (SIGKILL) while results
come; every fourth time the other one is stopped, so that its partitions move, every eighth time it loses its disk.
`wrong`: keys that either replica answers differently from a plain consumer's count (tests/kafka/recount.py).
`faust_exactly_once`: peers/faust_counter.py, Faust's own guarantee with each of its stores, killed while it counts:
records whose output is missing or doubled, and keys whose count is wrong. Each part keeps the other part's figures in
the file. Exits with code 1 if `wrong` is not 0.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tagbus.stream.config import Settings
from tagbus.stream.local.apache import ApacheKafka
from tests.bus.harness import settings
from tests.kafka.recount import recount
from tests.kafka.views_log import COMPACT, Replica, Tagger, layouts, replicas, wrong
from tests.support import consume_all, create_topics, produce, unique, wait_until

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "views.json"
PARTITIONS = 4
CONTENTS = 200
IDS = [f"c/{number} é" for number in range(CONTENTS)]
SECONDS = 300
Json = dict[str, object]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["views", "faust"], help="both if unset")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--results", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def views(address: str) -> Settings:
    """Return the settings of a run with separate topics."""
    group, tagged = unique("views"), unique("tagged")
    create_topics(address, {tagged: PARTITIONS, **layouts(PARTITIONS, group)})
    return settings(address, {"tagged": tagged}, views={"group": group})


def behind(given: Settings, topic: str) -> int:
    """Return the offsets of a topic that the group has not committed, transaction markers included."""
    consumer = Consumer({"bootstrap.servers": given.kafka.brokers, "group.id": given.views.group})
    try:
        asked = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        committed = consumer.committed(asked, timeout=60)
        ends = [consumer.get_watermark_offsets(one, timeout=60)[1] for one in asked]
        return sum(end - max(0, one.offset) for end, one in zip(ends, committed, strict=True))
    finally:
        consumer.close()


def speed(given: Settings, one: Replica, results: int) -> float:
    """Measure the results a second of one ready replica."""
    one.start().until_ready()
    started = time.monotonic()
    wait_until(lambda: one.applied() >= results, SECONDS, "the results in the rows of contents")
    wait_until(lambda: behind(given, given.views.changes) == 0, SECONDS, "the changes in the rows of tags")
    return results / (time.monotonic() - started)


def restore(one: Replica) -> float:
    """Measure the seconds until a replica without its folder is ready."""
    one.stop()
    shutil.rmtree(one.folder)
    started = time.monotonic()
    one.start().until_ready()
    return time.monotonic() - started


def killed(tagger: Tagger, both: list[Replica], asked: argparse.Namespace) -> None:
    """Kill one of two replicas repeatedly while results come."""
    chance = random.Random(asked.seed)  # noqa: S311 - not a secret
    for kill in range(asked.kills):
        one, other = both[kill % 2], both[1 - kill % 2]
        before = one.applied() + other.applied()
        tagger.write(chance.randrange(100, 400))
        wait_until(lambda a=one, b=other, seen=before: a.applied() + b.applied() > seen, SECONDS, "work")  # type: ignore[misc]
        time.sleep(chance.random())
        one.kill()
        tagger.write(50)
        one.start().until_ready()
        if kill % 4 == 3:
            # Its partitions move to the other, and back.
            other.stop()
            if kill % 8 == 7:
                shutil.rmtree(other.folder)
            tagger.write(50)
            other.start().until_ready()
        print({"kill": kill + 1, "applied": one.applied() + other.applied()}, flush=True)


def mistakes(given: Settings, both: list[Replica]) -> list[str]:
    """Return the wrong keys once everything is read; empty if all are right."""
    expected = recount(given.kafka.brokers, given.topics.tagged)
    deadline = time.monotonic() + SECONDS
    while (found := wrong(both, expected, IDS)) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def exactly_once(address: str, store: str, seed: int, kills: int = 3) -> Json:
    """Test Faust's own guarantee under kills."""
    group, source, output = unique("counter"), unique("source"), unique("output")
    create_topics(address, {source: 2, output: 2, f"{group}-counts-changelog": (2, COMPACT)})
    chance, sent = random.Random(seed), Counter[str]()  # noqa: S311 - not a secret
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "peers" / "faust_counter.py", address, group, source, output, store, folder]
        for kill in range(kills + 1):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as app:
                keys = [f"k{chance.randrange(20)}" for _ in range(400)]
                sent.update(keys)
                before = len(consume_all(address, output))
                produce(address, source, [(key.encode(), b"", []) for key in keys])
                seconds = time.monotonic() + 45
                enough = sent.total() if kill == kills else before + 1
                while time.monotonic() < seconds and len(consume_all(address, output)) < enough:
                    time.sleep(0.2)
                time.sleep(3 if kill == kills else chance.random())
                app.kill()
    outputs = Counter(message.value() for message in consume_all(address, output))
    last = {message.key(): message.value() for message in consume_all(address, f"{group}-counts-changelog")}
    counted = {key: int(last.get(key.encode()) or 0) for key in sent}
    return {
        "store": store,
        "kills": kills,
        "records": sent.total(),
        "missing": sent.total() - len(outputs),
        "doubled": outputs.total() - len(outputs),
        "keys": len(sent),
        "wrong_counts": sum(counted[key] != sent[key] for key in sent),
        "counted": sum(counted.values()),
    }


def measured(address: str, asked: argparse.Namespace) -> Json:
    """Measure the views."""
    given = views(address)
    tagger = Tagger(address, given.topics.tagged, CONTENTS, asked.seed)
    tagger.write(asked.results)
    committed = len(consume_all(address, given.topics.tagged))
    with tempfile.TemporaryDirectory() as folder, replicas(given, Path(folder), 2) as both:
        events = speed(given, both[0], committed)
        seconds = restore(both[0])
        print({"events_per_second": events, "restore_seconds": seconds}, flush=True)
        both[1].start().until_ready()
        killed(tagger, both, asked)
        found = mistakes(given, both)
        all_results = len(consume_all(address, given.topics.tagged))
    return {
        "seed": asked.seed,
        "events_per_second": round(events),
        "restore_seconds": round(seconds, 1),
        "restored_results": committed,
        "kills": asked.kills,
        "wrong": len(found),
        "examples": found[:5],
        "results": all_results,
        "contents": CONTENTS,
        "partitions": PARTITIONS,
    }


def main() -> int:
    asked = arguments()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, encoding="utf-8", check=False)
    report: Json = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    report["commit"] = commit.stdout.strip()
    with ApacheKafka() as broker:
        if asked.part != "views":
            stores = ("rocksdb://", "memory://")
            report["faust_exactly_once"] = [exactly_once(broker.address, store, asked.seed) for store in stores]
        if asked.part != "faust":
            report |= measured(broker.address, asked)
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    return 1 if report.get("wrong") else 0


if __name__ == "__main__":
    sys.exit(main())
