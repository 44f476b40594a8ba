"""The vector stores side by side: upserts, and top-100 searches for batches of 64 queries.

    python bench/memory.py [--points 30000]

Random unit vectors of 384 dimensions; the median of 5 searches after one warm-up. Writes bench/results/memory.json.
Set TAGBUS_BENCH_QDRANT to the URL of a Qdrant server to include it. The client's in-memory mode serves the contract
tests only and is here for reference.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from qdrant_client import AsyncQdrantClient

from tagbus.stream.memory import ExactStore, Point, Store, Vectors
from tagbus.stream.memory.embedded import EmbeddedStore
from tagbus.stream.memory.server import ServerStore, connect

DIMENSION = 384
CHUNK = 4_096
QUERIES = 64
LIMIT = 100
SEARCHES = 5
RESULTS = Path(__file__).parent / "results" / "memory.json"


async def exact() -> Store:
    return ExactStore("bench", DIMENSION)


async def embedded() -> Store:
    return await EmbeddedStore.temporary("bench", DIMENSION)


async def in_memory() -> Store:
    return await ServerStore.open(AsyncQdrantClient(":memory:"), "memory", "bench", "bench", DIMENSION, 600.0)


async def server() -> Store:
    client, place = connect(os.environ["TAGBUS_BENCH_QDRANT"], None, 60.0)
    return await ServerStore.open(client, place, f"bench-{uuid.uuid4().hex}", "bench", DIMENSION, 60.0)


async def measure(
    name: str, open_: Callable[[], Awaitable[Store]], points: list[Point], queries: Vectors
) -> dict[str, str | int | float]:
    store = await open_()
    started = time.perf_counter()
    for start in range(0, len(points), CHUNK):
        await store.upsert(points[start : start + CHUNK])
    upsert_seconds = time.perf_counter() - started
    seconds, cpu_seconds = [], []
    for _ in range(SEARCHES + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        await store.search(queries, LIMIT)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    await store.close()
    return {
        "name": name,
        "points": len(points),
        "upsert_seconds": round(upsert_seconds, 3),
        "search_batch_64_ms": round(1000 * statistics.median(seconds[1:]), 1),
        "search_batch_64_cpu_ms": round(1000 * statistics.median(cpu_seconds[1:]), 1),
    }


def unit(rows: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIMENSION), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


async def main(count: int) -> None:
    vectors, queries = unit(count, 0), unit(QUERIES, 1)
    points = [Point(f"tag:{n}", vector, {"tags": [f"tag:{n}"], "n": n}) for n, vector in enumerate(vectors)]
    stores = {"exact": exact, "embedded": embedded, "server, the client's in-memory mode": in_memory}
    if "TAGBUS_BENCH_QDRANT" in os.environ:
        stores["server"] = server
    else:
        print("skipped: Qdrant server (TAGBUS_BENCH_QDRANT is not set)", file=sys.stderr)
    rows = []
    for name, open_ in stores.items():
        rows.append(await measure(name, open_, points, queries))
        print(json.dumps(rows[-1]))
    method = (
        f"random unit vectors of {DIMENSION} dimensions; upsert in chunks of {CHUNK}; "
        f"median of {SEARCHES} searches of {QUERIES} queries for {LIMIT} hits each, with payloads"
    )
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"method": method, "machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=30_000)
    asyncio.run(main(parser.parse_args().points))
