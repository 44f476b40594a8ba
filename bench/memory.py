"""The vector stores side by side: upserts and top-100 searches for batches of 64 queries; what recall costs on top.

    python bench/memory.py [--points 30000]

Random unit vectors of 384 dimensions; the median of 5 searches after one warm-up, once over all points and once with
scopes that see half of them. Then graph recall over 2,500 tags and the same points, which carry 4 tags each: the CPU
time a content of looking around it and of scoring what is there. Writes bench/results/memory.json. Set
TAGBUS_BENCH_QDRANT to the URL of a Qdrant server to include it. The client's in-memory mode serves the contract tests
only and is here for reference.
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

from tagbus.stream.config import MemorySettings, RecallSettings
from tagbus.stream.contract.release import RecallDefaults
from tagbus.stream.memory import Carried, ExactStore, Point, Store, TagNumbers, Vectors, exact_memory
from tagbus.stream.memory.qdrant.client import Server, connect
from tagbus.stream.memory.qdrant.collections import Place
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tagbus.stream.memory.qdrant.server import ServerStore
from tagbus.stream.memory.store import Scopes
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.neighbours import Reach

DIMENSION = 384
CHUNK = 4_096
QUERIES = 64
LIMIT = 100
SEARCHES = 5
TAGS = 2_500
TAGS_EACH = 4
RESULTS = Path(__file__).parent / "results" / "memory.json"

Row = dict[str, str | int | float]


def carried() -> Carried:
    return Carried(TagNumbers(), "accepted")


async def exact() -> Store:
    return ExactStore("bench", DIMENSION, carried())


async def embedded() -> Store:
    return await EmbeddedStore.temporary("bench", DIMENSION, carried())


async def in_memory() -> Store:
    server = Server(AsyncQdrantClient(":memory:"), "memory", 600.0)
    return await begun(server)


async def server() -> Store:
    url = os.environ["TAGBUS_BENCH_QDRANT"]
    return await begun(connect(MemorySettings(kind="server", url=url, deadline_seconds=60.0)))


async def begun(server: Server) -> Store:
    store = ServerStore(server, Place("bench", "bench", uuid.uuid4().hex, DIMENSION), carried())
    await store.begin("bench", "tags")
    return store


async def measure(name: str, open_: Callable[[], Awaitable[Store]], points: list[Point], queries: Vectors) -> Row:
    store = await open_()
    started = time.perf_counter()
    for start in range(0, len(points), CHUNK):
        await store.upsert(points[start : start + CHUNK])
    row: Row = {"name": name, "points": len(points), "upsert_seconds": round(time.perf_counter() - started, 3)}
    asked: dict[str, Scopes] = {"search": None}
    if open_ is not in_memory:  # half a minute a search
        asked["scoped"] = [frozenset({"half"})] * len(queries)
    for what, scopes in asked.items():
        seconds, cpu_seconds = await searches(store, queries, scopes)
        row[f"{what}_batch_64_ms"] = round(1000 * seconds, 1)
        row[f"{what}_batch_64_cpu_ms"] = round(1000 * cpu_seconds, 1)
    await store.close()
    return row


async def searches(store: Store, queries: Vectors, scopes: Scopes) -> tuple[float, float]:
    """Median seconds and CPU seconds of a search."""
    seconds, cpu_seconds = [], []
    for _ in range(SEARCHES + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        await store.search(queries, LIMIT, scopes)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    return statistics.median(seconds[1:]), statistics.median(cpu_seconds[1:])


async def recall(points: list[Point], queries: Vectors) -> Row:
    """CPU time a content of graph recall over the exact store, but for the names of what is found."""
    memory = exact_memory("bench", DIMENSION)
    tags = [Point(f"t{n}", vector, {"name": f"tag {n}"}) for n, vector in enumerate(unit(TAGS, 2))]
    await memory.tags.upsert(tags)
    await memory.exemplars.upsert(points)
    graph = GraphRecall(memory.tags, memory.exemplars, RecallDefaults(), RecallSettings())
    ids = [f"new{n}" for n in range(len(queries))]
    look, score = [], []
    for _ in range(SEARCHES + 1):
        started = time.process_time()
        seen = await graph.look(ids, queries, Reach(50, LIMIT))
        looked = time.process_time()
        graph.score(seen)
        look.append(looked - started)
        score.append(time.process_time() - looked)
    await memory.close()
    times = {"look_cpu_us_a_content": look, "score_cpu_us_a_content": score}
    found = {name: round(1e6 * statistics.median(each[1:]) / len(queries), 1) for name, each in times.items()}
    return {"name": "graph recall over exact", "points": len(points), "tags": TAGS, **found}


def unit(rows: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIMENSION), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def exemplars(count: int) -> list[Point]:
    """Points as contents that people have tagged; the odd ones are of a scope that is not asked for."""
    tags = np.random.default_rng(3).integers(TAGS, size=(count, TAGS_EACH)).tolist()
    return [
        Point(
            f"c{n}/people",
            vector,
            {
                "id": f"c{n}",
                "source": "people",
                "accepted": [f"t{tag}" for tag in tags[n]],
                "scopes": ["half" if n % 2 else "other"],
            },
        )
        for n, vector in enumerate(unit(count, 0))
    ]


async def main(count: int) -> None:
    points, queries = exemplars(count), unit(QUERIES, 1)
    stores = {"exact": exact, "embedded": embedded, "server, the client's in-memory mode": in_memory}
    if "TAGBUS_BENCH_QDRANT" in os.environ:
        stores["server"] = server
    else:
        print("skipped: a Qdrant server (TAGBUS_BENCH_QDRANT holds no URL)", file=sys.stderr)
    rows = []
    for name, open_ in stores.items():
        rows.append(await measure(name, open_, points, queries))
        print(json.dumps(rows[-1]))
    rows.append(await recall(points, queries))
    print(json.dumps(rows[-1]))
    method = (
        f"random unit vectors of {DIMENSION} dimensions; upsert in chunks of {CHUNK}; median of {SEARCHES} searches of "
        f"{QUERIES} queries for {LIMIT} hits each with {TAGS_EACH} tags a hit; scoped: of half of the points"
    )
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"method": method, "machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=30_000)
    asyncio.run(main(parser.parse_args().points))
