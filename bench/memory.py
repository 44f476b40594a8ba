"""The vector stores at scale: the cost to build, hold and search them, and their recall, with and without a filter.

    python bench/memory.py [--sizes 25000:300000 100000:300000 1000000:1000000] [--data real clustered] [--minutes 90]
        [--stores exact hnsw hnsw-on-disk embedded server] [--tag-vectors labels.npy] [--exemplar-vectors train-*.npy]

A size is tags:exemplars. `real`: unit vectors float32 [n, 384] of real texts, from `--tag-vectors` and
`--exemplar-vectors`; where they are too few, noisy copies of them follow, and a row says how many are real.
`clustered`: noisy copies of 2,000 random centres. Batches of 64 contents search for 100 tags and 100 exemplars.
Filters: 50, 25, 5 and 1% of the points, chosen at random or nearest to one of them, as a tenant's or a language's may
be. Recall is of the 20 nearest of 256 queries, against every vector compared; a row has that of tags, of exemplars, and
the mean.

Each store runs in a separate process, for at most `--minutes`; a filter's searches take at most `--seconds`. Each row
is written to bench/results/memory.json immediately, and cases that have rows there are skipped, so the same command
resumes after an interruption (`--again` measures again). Vectors are kept in --cache, 3 GB at a million and a million,
and stores in --keep, also half built ones, so that a million tags are built once, in as many runs as it takes. `server`
needs the URL of a Qdrant server in TAGBUS_TEST_QDRANT; its CPU, memory and disk are not measured. A process needs some
6 kB of memory per point; disk_bytes is a saved copy's for exact and hnsw.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from points import DIMENSION, QUERIES, SHARES, TOP, Corpus, Passed, corpus, members, nearest_20

from tagbus.stream.config import MemorySettings
from tagbus.stream.memory import Carried, ExactStore, Memory, Point, memory_of
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.qdrant.client import connect
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.store import Scopes, Store

BATCH = 64
LIMIT = 100
TAGS_EACH = 4
KIND_NAMES = ("tags", "exemplars")
# `hnsw-on-disk`: with vectors and payloads in files.
STORES = ("exact", "hnsw", "hnsw-on-disk", "embedded", "server")
SERVER = "TAGBUS_TEST_QDRANT"
# In the folder of a store that is kept: the seconds and CPU seconds that filling it took.
BUILT = "built.json"
KEEP_SECONDS = 300.0
RESULTS = Path(__file__).parent / "results" / "memory.json"

Row = dict[str, str | int | float | None]
# By kind and by the name of a scope.
Members = dict[str, dict[str, Passed]]


@dataclass(frozen=True, slots=True)
class Case:
    """One store at one size."""

    store: str
    data: str
    tags: Corpus
    exemplars: Corpus
    seconds: float
    out: Path
    kept: Path | None

    @property
    def about(self) -> Row:
        real = {"real_tags": self.tags.real, "real_exemplars": self.exemplars.real}
        return {
            "store": self.store,
            "data": self.data,
            "tags": self.tags.count,
            "exemplars": self.exemplars.count,
        } | real

    @property
    def corpora(self) -> dict[str, Corpus]:
        return {"tags": self.tags, "exemplars": self.exemplars}


async def opened(name: str, folder: Path) -> Memory:
    unique = f"tagbus-bench-{uuid.uuid4().hex[:8]}"
    server = (
        connect(MemorySettings(kind="server", url=os.environ[SERVER], deadline_seconds=60.0))
        if name == "server"
        else None
    )

    async def store(kind: str, carried: Carried) -> Store:
        if server is not None:
            made = ServerStore(server, CollectionSpec(unique, "bench", kind, DIMENSION), carried)
            await made.begin("bench", kind)
            return made
        if name == "embedded":
            return await EmbeddedStore.open(folder / kind, "bench", DIMENSION, carried)
        if name == "exact":
            return ExactStore("bench", DIMENSION, carried)
        return HnswStore("bench", DIMENSION, carried, folder / "files" if name == "hnsw-on-disk" else None)

    return await memory_of(store, {kind: KINDS[kind] for kind in KIND_NAMES})


async def fill(store: Store, kind: str, case: Case, seen: dict[str, Passed]) -> AsyncIterator[None]:
    """Upsert the points of a kind that are not in the store, some thousands at a time."""
    drawn = np.random.default_rng(3)
    there = await store.count()
    for first, vectors in case.corpora[kind].chunks():
        inside = {name: flags[first : first + len(vectors)] for name, flags in seen.items()}
        carried = drawn.integers(case.tags.count, size=(len(vectors), TAGS_EACH)).tolist()
        if first < there:
            continue
        await store.upsert(
            [
                Point(
                    f"k{first + n}",
                    vector,
                    {
                        "scopes": [name for name, flags in inside.items() if flags[n]] or ["nobody"],
                        **({"accepted": [f"k{tag}" for tag in carried[n]]} if kind == "exemplars" else {}),
                    },
                )
                for n, vector in enumerate(vectors)
            ]
        )
        yield


async def filled(store: Store, kind: str, case: Case, seen: dict[str, Passed]) -> tuple[float, float]:
    """Fill the store, beginning with what an earlier run kept of it, and keep it every five minutes and at the end.
    Returns the seconds and CPU seconds that filling took, without the keeping."""
    place = case.kept and case.kept / f"{case.store}-{case.data}-{kind}-{case.corpora[kind].count}-{case.tags.count}"
    seconds = cpu = 0.0
    if place and isinstance(store, ExactStore) and (place / BUILT).exists():
        await store.take(place)
        seconds, cpu = json.loads((place / BUILT).read_text(encoding="utf-8"))

    async def keep_it() -> None:
        if place and isinstance(store, ExactStore):
            await store.save(place)
            (place / BUILT).write_text(json.dumps((seconds, cpu)), encoding="utf-8")

    kept, started, cpu_started = time.monotonic(), time.monotonic(), time.process_time()
    async for _ in fill(store, kind, case, seen):
        seconds, cpu = seconds + time.monotonic() - started, cpu + time.process_time() - cpu_started
        if time.monotonic() - kept > KEEP_SECONDS:
            await keep_it()
            kept = time.monotonic()
        started, cpu_started = time.monotonic(), time.process_time()
    await keep_it()
    return seconds, cpu


async def searches(memory: Memory, case: Case, scope: str | None) -> Row:
    """Time batches that search for tags and exemplars together; the first does not count."""
    queries = {kind: np.load(one.queries) for kind, one in case.corpora.items()}
    seen: Scopes = None if scope is None else [frozenset({scope})] * BATCH
    took, cpu, started = list[float](), list[float](), time.monotonic()
    while len(took) < 3 or (len(took) <= 200 and time.monotonic() - started < case.seconds):
        first = len(took) * BATCH % QUERIES
        begun, cpu_begun = time.perf_counter(), time.process_time()
        await asyncio.gather(
            *(memory.stores[kind].search(one[first : first + BATCH], LIMIT, seen) for kind, one in queries.items())
        )
        took.append(1000 * (time.perf_counter() - begun))
        cpu.append(1000 * (time.process_time() - cpu_begun))
    p50, p99 = (round(float(cut), 1) for cut in np.percentile(took[1:], (50, 99)))
    own = None if case.store == "server" else round(statistics.median(cpu[1:]), 1)
    return {"p50_ms": p50, "p99_ms": p99, "cpu_ms": own, "batches": len(took) - 1}


async def recalls(memory: Memory, case: Case, scope: str | None, seen: Members) -> Row:
    row: Row = {}
    for kind, one in case.corpora.items():
        right = nearest_20(one, None if scope is None else seen[kind][scope])
        scopes: Scopes = None if scope is None else [frozenset({scope})] * QUERIES
        found = await memory.stores[kind].search(np.load(one.queries), LIMIT, scopes)
        shares = [len({*hits.keys[:TOP]} & keys) / max(1, len(keys)) for hits, keys in zip(found, right, strict=True)]
        row[f"recall_at_20_{kind}"] = round(float(np.mean(shares)), 4)
    mean = (float(row["recall_at_20_tags"] or 0) + float(row["recall_at_20_exemplars"] or 0)) / 2
    return {"recall_at_20": round(mean, 4), **row}


def memory_bytes(what: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(what):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no line {what}")


async def disk_bytes(memory: Memory, name: str, folder: Path) -> int | None:
    if name == "server":
        return None
    for kind, store in memory.stores.items():
        if isinstance(store, ExactStore):
            await store.save(folder / kind)
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


async def measure(case: Case, folder: Path) -> None:
    memory = await opened(case.store, folder)
    seen = {kind: members(one) for kind, one in case.corpora.items()}
    before, mapped = memory_bytes("RssAnon"), memory_bytes("RssFile")
    took = [await filled(store, kind, case, seen[kind]) for kind, store in memory.stores.items()]
    points = case.tags.count + case.exemplars.count
    built: Row = {"build_seconds": round(sum(seconds for seconds, _ in took), 1)}
    if case.store == "server":
        built |= {"cpu_seconds": None, "bytes_per_vector": None, "mapped_bytes_per_vector": None}
    else:
        built["cpu_seconds"] = round(sum(cpu for _, cpu in took), 1)
        built["bytes_per_vector"] = round((memory_bytes("RssAnon") - before) / points)
        # Pages of files, which the system may drop.
        built["mapped_bytes_per_vector"] = round((memory_bytes("RssFile") - mapped) / points)
    built["disk_bytes"] = await disk_bytes(memory, case.store, folder)
    for scope in (None, *seen["tags"]):
        how, _, share = (scope or "all 1").rpartition(" ")
        found = await searches(memory, case, scope) | await recalls(memory, case, scope, seen)
        keep(case.out, [case.about | {"filter_share": float(share), "chosen": how} | built | found])
    for store in memory.stores.values():
        if isinstance(store, ServerStore):
            await store.drop()
    await memory.close()


def child(case: Case) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tagbus-bench-"))
    try:
        asyncio.run(measure(case, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def key(row: Row) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("store", "data", "tags", "exemplars", "filter_share", "chosen"))


def report(out: Path) -> dict[str, object]:
    """Read the existing report, including the figures of other benchmarks."""
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    return found | {"rows": found.get("rows", [])}


def keep(out: Path, rows: Sequence[Row]) -> None:
    """Print the rows, and store them, replacing those of the same case."""
    for row in rows:
        print(json.dumps(row), flush=True)
    told = report(out)
    there = {key(row): row for row in told["rows"]}  # type: ignore[attr-defined]
    told["rows"] = list((there | {key(row): row for row in rows}).values())
    told["method"] = (
        f"{DIMENSION} dimensions; {BATCH} queries a batch, {LIMIT} tags and {LIMIT} exemplars each, at once; recall of "
        f"the {TOP} nearest over {QUERIES} queries"
    )
    told["machine"] = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_suffix(".new")
    draft.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    draft.replace(out)


def cases(asked: argparse.Namespace) -> Iterator[Case]:
    """Yield all requested cases, real vectors first."""
    for data in asked.data:
        given = (asked.tag_vectors, asked.exemplar_vectors) if data == "real" else ((), ())
        if data == "real" and not all(given):
            print("skipped: real vectors (--tag-vectors and --exemplar-vectors name no files)", file=sys.stderr)
            continue
        for size in asked.sizes:
            counts = [int(one) for one in size.split(":")]
            tags, exemplars = (
                corpus(asked.cache, f"{data}-{kind}", count, some)
                for kind, count, some in zip(KIND_NAMES, counts, given, strict=True)
            )
            for store in asked.stores:
                if store == "server" and SERVER not in os.environ:
                    print(f"skipped: a Qdrant server ({SERVER} holds no URL)", file=sys.stderr)
                    continue
                yield Case(store, data, tags, exemplars, asked.seconds, asked.out, asked.keep)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["25000:300000", "100000:300000", "1000000:1000000"])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--data", nargs="+", choices=("real", "clustered"), default=("real", "clustered"))
    parser.add_argument("--tag-vectors", type=Path, nargs="*", default=())
    parser.add_argument("--exemplar-vectors", type=Path, nargs="*", default=())
    parser.add_argument("--seconds", type=float, default=60.0, help="for the searches of a filter")
    parser.add_argument("--minutes", type=float, default=90.0, help="for a store at a size")
    parser.add_argument("--again", action="store_true", help="measure also what has rows")
    parser.add_argument("--cache", type=Path, default=Path(".cache/memory"), help="folder that keeps vectors")
    parser.add_argument("--keep", type=Path, help="folder that keeps the stores exact and hnsw for another run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    failed = 0
    for case in cases(asked):
        there = sum(case.about.items() <= row.items() for row in report(asked.out)["rows"])  # type: ignore[attr-defined]
        if there == 1 + 2 * len(SHARES) and not asked.again:
            continue
        process = multiprocessing.get_context("spawn").Process(target=child, args=(case,))
        process.start()
        process.join(60 * asked.minutes)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode:
            failed += 1
            print(f"{case.about} ended with code {process.exitcode}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
