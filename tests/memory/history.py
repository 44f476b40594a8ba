"""Arbitrary histories of a store: writes, changes and deletes, and the expected state after them."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from tagbus.stream.memory import Point, Store, Vectors

Unit = Callable[..., Vectors]

# Vectors before they are of unit length.
NUMBERS = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)

# A key, and a vector and a payload to store, a payload to change, or neither: the point is deleted.
Write = tuple[str, list[int] | None, dict[str, Any] | None]


def histories(payloads: st.SearchStrategy[dict[str, Any]], most: int) -> st.SearchStrategy[list[Write]]:
    """At most `most` writes, with these payloads."""
    return st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.none() | NUMBERS, st.none() | payloads),
        max_size=most,
    )


async def written(store: Store, unit: Unit, history: Sequence[Write]) -> dict[str, tuple[Vectors, dict[str, Any]]]:
    """Write it into the store, replacing its state; returns the resulting vectors and payloads."""
    await store.delete(list(await store.keys()))
    left: dict[str, tuple[Vectors, dict[str, Any]]] = {}
    for key, vector, payload in history:
        if vector is not None:
            left[key] = unit(vector), payload or {}
            await store.upsert([Point(key, *left[key])])
        elif payload is not None:
            if key in left:
                left[key] = left[key][0], payload
            await store.set_payloads({key: payload})
        else:
            left.pop(key, None)
            await store.delete([key])
    return left
