"""The time until a new tag is in force while a worker tags at full load, and a worker's start from a snapshot.

    python bench/in_force.py [--tags 25000 1000000] [--samples 60] [--vectors labels.npy] [--memory hnsw]

Apache Kafka on this machine, a worker as `tagbus run` starts it. The worker's memory is a snapshot of --tags tags, as
`tagbus memory snapshot` writes it for that kind of memory, but with given vectors, so that nothing is encoded: those
of `--vectors` (unit vectors float32 [n, 384]), then noisy copies of them, or of random centres without. Only the
snapshot has the tags and the topics are empty, so the worker reads only the offsets after it: `snapshot_start_seconds`
is from the start of the process until /readyz is 200, `snapshot_start_cpu_seconds` its CPU time by then. A snapshot of
a million with its index takes 25 minutes of CPU: `--folder` keeps it for the next run, and `--kept` takes vectors and
index from a store that bench/memory.py kept.

Then contents are published so that two thousand wait at any time. Their titles name, in turn, the future tags, each
title once. Every `--every` seconds one of these tags is published: `tag_in_force` is the time from producing it until
a committed result that carries it is read. Writes the figures for each number of tags into bench/results/memory.json
(`in_force`, and the two figures of the largest number) as soon as they are measured. Goals: p95 at most 1 s, a start
within 60 s at a million.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tagbus.stream.app.places.folders import base_release, snapshot_folder
from tagbus.stream.cli.create import create_all
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Content, Tag
from tagbus.stream.contract.release import Release
from tagbus.stream.index import snapshot
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.worker import LocalWorker
from tagbus.stream.memory import ExactStore, Payload, Point, Store, Vectors, exact_memory
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.kinds import KINDS

# In a snapshot's folder: how many of its vectors were given.
REAL = "real-vectors.txt"
# As bench/memory.py opens stores.
KEPT_RELEASE = "bench"
RESULTS = Path(__file__).parent / "results" / "memory.json"
PARTITIONS = 4
WAITING = 2_000
CHUNK = 4_096
NOISE = 0.02
CENTRES = 2_000
WARM = 1_000
SECONDS = 300.0
THINGS = "honey glass river copper wool paper bread amber marble cedar".split()  # noqa: SIM905
CRAFTS = "harvesting weaving mapping smelting printing trading carving brewing farming shipping".split()  # noqa: SIM905
NAMES = [f"{thing} {craft}" for thing in THINGS for craft in CRAFTS]
Row = dict[str, object]


def vectors(count: int, given: Sequence[Path]) -> tuple[Vectors, int]:
    """Return unit vectors of `count` tags, and how many of them were given."""
    rng = np.random.default_rng(0)
    real = np.concatenate([np.load(path) for path in given]) if given else rng.normal(size=(CENTRES, 384))
    found = np.empty((count, real.shape[1]), np.float32)
    kept = min(count, len(real)) if given else 0
    found[:kept] = real[:kept]
    for first in range(kept, count, CHUNK):
        copies = real[rng.integers(len(real), size=min(CHUNK, count - first))]
        found[first : first + CHUNK] = copies + NOISE * rng.normal(size=copies.shape)
    return found / np.linalg.norm(found, axis=1, keepdims=True), kept


def payloads_of(ids: Sequence[str], release: Release) -> dict[str, Payload]:
    """Return what the memory holds of tags of these ids."""
    entries = [KINDS["tags"].read(encode_record(Tag(id=one, name=f"Tag {one}")), release) for one in ids]
    return {entry.key: entry.payload for entry in entries if entry is not None}


async def take(store: Store, kept: Path, release: Release, count: int) -> None:
    """Fill the store with the points of a kept one, which become tags."""
    assert isinstance(store, ExactStore)
    store.release = KEPT_RELEASE
    await store.take(kept)
    store.release = release.name
    keys = sorted(await store.keys())
    if len(keys) != count:
        raise SystemExit(f"{kept} holds {len(keys)} points, not {count}")
    for first in range(0, count, CHUNK):
        await store.set_payloads(payloads_of(keys[first : first + CHUNK], release))


async def write(place: Path, settings: Settings, release: Release, asked: argparse.Namespace, count: int) -> None:
    """Write a snapshot with `count` tags, at the start of empty topics."""
    memory = exact_memory(release.name, release.dimension, HnswStore if asked.memory == "hnsw" else ExactStore)
    real = 0
    if asked.kept:
        await take(memory.tags, asked.kept, release, count)
    else:
        some, real = vectors(count, asked.vectors)
        for first in range(0, count, CHUNK):
            payloads = payloads_of([f"t{n}" for n in range(first, min(count, first + CHUNK))], release)
            pairs = zip(payloads.items(), some[first : first + CHUNK], strict=True)
            await memory.tags.upsert([Point(key, vector, payload) for (key, payload), vector in pairs])
    topics = [kind.topic(settings.topics) for kind in KINDS.values()]
    starts = {(topic, partition): 0 for topic in topics for partition in range(PARTITIONS)}
    place.mkdir(parents=True)
    await snapshot.save(place, memory, starts, snapshot.Origin(cluster="", topics={}))
    await memory.close()
    (place / REAL).write_text(str(real), encoding="utf-8")


def settings_of(asked: argparse.Namespace, count: int, folder: Path) -> Settings:
    base = Settings.model_construct()
    names = {
        word: f"{count}-{word}" for word in base.topics.model_dump() if isinstance(getattr(base.topics, word), str)
    }
    return Settings.model_construct(
        kafka=base.kafka.model_copy(update={"group": f"in-force-{count}"}),
        topics=base.topics.model_copy(update={**names, "partitions": PARTITIONS}),
        releases=base.releases.model_copy(update={"folder": folder / f"{asked.memory}-{count}"}),
    )


def prepared(asked: argparse.Namespace, count: int, folder: Path) -> Settings:
    """Return the settings of a run with a snapshot, written now or by an earlier run."""
    settings = settings_of(asked, count, folder)
    release = base_release(settings)
    place = snapshot_folder(settings, release.name)
    assert place is not None
    if snapshot.current(place) is None:
        asyncio.run(write(place, settings, release, asked, count))
    return settings


class Load:
    """Publishes contents as fast as results come, so that some always wait; notes when each tag first has a result."""

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        self.found: dict[str, float] = {}
        self.results = 0
        self._settings, self._names = settings, names
        self._failed: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def wait(self, results: int, tag: str | None = None) -> None:
        """Wait for so many results, and one that carries the tag."""
        deadline = time.monotonic() + SECONDS
        while self.results < results or (tag is not None and tag not in self.found):
            if self._failed is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.results} results, and tag {tag} on none, in {SECONDS:.0f} s: {self._failed}")
            time.sleep(0.005)

    def _run(self) -> None:
        try:
            self._feed()
        except BaseException as error:
            self._failed = error

    def _feed(self) -> None:
        topics, sent = self._settings.topics, 0
        with TopicReader(self._settings.kafka) as reader, TopicWriter(self._settings.kafka, topics.content) as writer:
            reader.discover([topics.tagged], "end")
            while not self._stopped.is_set():
                while sent < self.results + WAITING:
                    title = f"{self._names[sent % len(self._names)]} {sent}"
                    writer.send(encode_record(Content(id=f"c{sent}", title=title)))
                    sent += 1
                for message in reader.read(1_000, 0.02).messages:
                    self.results += 1
                    now = time.monotonic()
                    for tag in json.loads(message.value() or b"{}")["tags"]:
                        self.found.setdefault(tag["id"], now)


def measure(broker: ApacheKafka, asked: argparse.Namespace, count: int, prepared: Settings) -> Row:
    settings = prepared.model_copy(update={"kafka": prepared.kafka.model_copy(update={"brokers": broker.address})})
    create_all(settings)
    place = snapshot_folder(settings, base_release(settings).name)
    assert place is not None
    found = snapshot.current(place)
    assert found is not None
    # It was written before this broker ran, possibly by an earlier run: workers use no snapshot of other topics.
    found = found.model_copy(update={"origin": snapshot.origin(settings)})
    (place / snapshot.CURRENT).write_text(found.model_dump_json(), encoding="utf-8")
    real = int((place / REAL).read_text(encoding="utf-8"))
    extra = {"TAGBUS_RELEASES__FOLDER": str(settings.releases.folder), "TAGBUS_MEMORY__KIND": asked.memory}
    if asked.batch:
        extra["TAGBUS_BATCH__CONTENTS"] = str(asked.batch)
    started = time.monotonic()
    with LocalWorker(settings, extra) as worker:
        worker.wait_until_ready()
        batch = asked.batch or settings.batch.contents
        row: Row = {"tags": count, "real_tags": real, "memory": asked.memory, "batch_contents": batch}
        row["snapshot_start_seconds"] = round(time.monotonic() - started, 2)
        row["snapshot_start_cpu_seconds"] = round(cpu_seconds(worker.process.pid), 1)
        print(json.dumps(row), flush=True)
        row |= in_force(settings, asked)
        worker.stop()
    return row


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_force(settings: Settings, asked: argparse.Namespace) -> Row:
    names = NAMES[: asked.samples]
    took = list[float]()
    with Load(settings, names) as load, TopicWriter(settings.kafka, settings.topics.tags) as tags:
        load.wait(WARM)
        begun, before = time.monotonic(), load.results
        for number, name in enumerate(names):
            due = time.monotonic() + asked.every
            published = time.monotonic()
            tags.send(encode_record(Tag(id=f"new-{number}", name=name)))
            load.wait(0, f"new-{number}")
            took.append(round(load.found[f"new-{number}"] - published, 4))
            time.sleep(max(0.0, due - time.monotonic()))
        rate = (load.results - before) / (time.monotonic() - begun)
    p50, p95, p99 = (round(float(cut), 3) for cut in np.percentile(took, (50, 95, 99)))
    told: Row = {"tag_in_force_p50_seconds": p50, "tag_in_force_p95_seconds": p95, "tag_in_force_p99_seconds": p99}
    return told | {"contents_per_second": round(rate, 1), "waiting_contents": WAITING, "seconds": took}


def keep(out: Path, row: Row) -> None:
    """Store the row, replacing the one with its number of tags, kind of memory and size of batches."""
    told = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"rows": []}
    rows = {(one["tags"], one["memory"], one.get("batch_contents")): one for one in [*told.get("in_force", []), row]}
    told["in_force"] = list(rows.values())
    largest = max(told["in_force"], key=lambda one: one["tags"])
    for name in ("tag_in_force_p95_seconds", "snapshot_start_seconds"):
        told[name] = largest[name]
    out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def measured(asked: argparse.Namespace, prepared: Mapping[int, Settings]) -> int:
    with ApacheKafka() as broker:
        for count, settings in prepared.items():
            row = measure(broker, asked, count, settings)
            keep(asked.out, row)
            print(json.dumps({name: value for name, value in row.items() if name != "seconds"}), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, nargs="+", default=[25_000, 1_000_000])
    parser.add_argument("--samples", type=int, default=60, help=f"tags that are published, {len(NAMES)} at most")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between them at least")
    parser.add_argument("--vectors", type=Path, nargs="*", default=())
    parser.add_argument("--memory", choices=("exact", "hnsw", "embedded"), default="hnsw")
    parser.add_argument("--batch", type=int, default=0, help="contents per batch, if not the default")
    parser.add_argument("--kept", type=Path, help="a store of as many tags in the --keep of bench/memory.py")
    parser.add_argument("--folder", type=Path, help="where snapshots are kept for the next run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {count: prepared(asked, count, asked.folder or Path(folder)) for count in asked.tags}
        return measured(asked, settings)


if __name__ == "__main__":
    sys.exit(main())
