"""Filtered search: what a store costs and finds where a content sees 50, 25, 5 and 1% of the points.

    python bench/filters.py [--points 200000] [--vectors a.npy b.npy]

The points that are seen are chosen at random, or are those nearest to one of them, as a tenant's or a language's may
be. 64 queries a batch ask for 100 points; recall@20 is against the exact store. `--vectors`: unit vectors float32
[n, 384] of real contents, the last 256 of which ask; without them, or where they are too few, noisy copies of them or
of cluster centres are added. Writes bench/results/filters.json.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tagbus.stream.memory import ExactStore, Point, Vectors
from tagbus.stream.memory.hnsw import HnswStore

DIMENSION = 384
CHUNK = 4_096
BATCH = 64
QUERIES = 256
LIMIT = 100
TOP = 20
SEARCHES = 5
CENTRES = 2_000
NOISE = 0.02
SHARES = (0.5, 0.25, 0.05, 0.01)
RESULTS = Path(__file__).parent / "results" / "filters.json"

Row = dict[str, str | int | float]
Stores = dict[str, ExactStore]


def vectors(count: int, given: Sequence[Path]) -> tuple[Vectors, Vectors, int]:
    """Points, queries, and how many of the points were given."""
    rng = np.random.default_rng(0)
    if given:
        real = np.concatenate([np.load(path) for path in given]).astype(np.float32)
    else:
        real = unit(rng.normal(size=(CENTRES + QUERIES, DIMENSION)))
    queries, real = real[-QUERIES:], real[:-QUERIES]
    copies = rng.integers(len(real), size=max(0, count - len(real)))
    noisy = unit(real[copies] + NOISE * rng.normal(size=(len(copies), DIMENSION)).astype(np.float32))
    return np.concatenate([real[:count], noisy]), queries, min(count, len(real)) if given else 0


def unit(rows: np.ndarray) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def scopes(points: Vectors) -> list[list[str]]:
    """The scopes of each point: one for each share and way of choosing that it is in."""
    place = {
        "at random": np.random.default_rng(1).permutation(len(points)),
        "nearest to one": np.argsort(np.argsort(-(points @ points[7]))),
    }
    inside = {
        f"{how} {share}": (ranks < share * len(points)).tolist() for how, ranks in place.items() for share in SHARES
    }
    return [[name for name, flags in inside.items() if flags[row]] or ["nobody"] for row in range(len(points))]


async def filled(points: Vectors) -> Stores:
    stores: Stores = {"exact": ExactStore("bench", DIMENSION), "hnsw": HnswStore("bench", DIMENSION)}
    named = scopes(points)
    for start in range(0, len(points), CHUNK):
        rows = range(start, min(len(points), start + CHUNK))
        some = [Point(f"k{row}", points[row], {"scopes": [*named[row]]}) for row in rows]
        for store in stores.values():
            await store.upsert(some)
    return stores


async def cpu_ms(store: ExactStore, queries: Vectors, scope: str | None) -> float:
    """The median CPU time of a batch."""
    seen = None if scope is None else [frozenset({scope})] * BATCH
    took = []
    for _ in range(SEARCHES):
        started = time.process_time()
        await store.search(queries[:BATCH], LIMIT, seen)
        took.append(time.process_time() - started)
    return 1000 * statistics.median(took)


async def recall(stores: Stores, queries: Vectors, scope: str | None) -> float:
    seen = None if scope is None else [frozenset({scope})] * len(queries)
    found, right = [await stores[name].search(queries, LIMIT, seen) for name in ("hnsw", "exact")]
    shares = [
        len({*a.keys[:TOP]} & {*b.keys[:TOP]}) / max(1, len(b.keys[:TOP])) for a, b in zip(found, right, strict=True)
    ]
    return float(np.mean(shares))


async def main(count: int, given: Sequence[Path]) -> None:
    points, queries, real = vectors(count, given)
    stores = await filled(points)
    whole: dict[str, float] = {}
    rows: list[Row] = []
    for how in ("all", "at random", "nearest to one"):
        for share in (1.0,) if how == "all" else SHARES:
            scope = None if how == "all" else f"{how} {share}"
            found = await recall(stores, queries, scope)
            for name, store in stores.items():
                cost = await cpu_ms(store, queries, scope)
                whole.setdefault(name, cost)
                row: Row = {"store": name, "points": count, "filter_share": share, "chosen": how}
                row |= {"batch_64_cpu_ms": round(cost, 1), "times_unfiltered": round(cost / whole[name], 2)}
                row["recall_at_20"] = round(found, 4) if name == "hnsw" else 1.0
                rows.append(row)
                print(json.dumps(row), flush=True)
    method = (
        f"{real} vectors of real contents and {count - real} noisy copies of them or of {CENTRES} random centres, "
        f"{DIMENSION} dimensions; median of {SEARCHES} searches of {BATCH} queries for {LIMIT} points each; recall of "
        f"the {TOP} nearest over {QUERIES} queries"
    )
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    told = {"method": method, "machine": machine, "rows": rows}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--vectors", type=Path, nargs="*", default=())
    arguments = parser.parse_args()
    asyncio.run(main(arguments.points, arguments.vectors))
