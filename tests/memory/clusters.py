"""Points around centres, in a store with an index and in one without, and what the index finds of them."""

from collections.abc import Callable

import numpy as np

from tagbus.stream.memory import ExactStore, Point, Vectors
from tagbus.stream.memory.hnsw import HnswStore
from tests.memory.listing import Hit

Unit = Callable[..., Vectors]

D = 24


def clustered(unit: Unit, count: int, seed: int = 0) -> Vectors:
    """Unit vectors around 40 centres, as texts lie around subjects."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(40, D))
    return unit(centres[random.integers(40, size=count)] + 0.7 * random.normal(size=(count, D)))


def points(vectors: Vectors, first: int = 0) -> list[Point]:
    return [Point(f"k{n:05}", vector, {"n": n}) for n, vector in enumerate(vectors, start=first)]


def recall(found: list[list[Hit]], right: list[list[Hit]]) -> float:
    pairs = zip(found, right, strict=True)
    return float(
        np.mean([len({*hits} & {*best}) / len(best) for hits, best in ((map(of, a), [*map(of, b)]) for a, b in pairs)])
    )


def of(hit: Hit) -> tuple[str, float]:
    return hit.key, hit.similarity


async def both(some: list[Point]) -> tuple[HnswStore, ExactStore]:
    """The same points in a store with an index and in one without."""
    stores = HnswStore("r", D), ExactStore("r", D)
    for store in stores:
        for start in range(0, len(some), 500):
            await store.upsert(some[start : start + 500])
    return stores
