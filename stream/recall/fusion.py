"""Reciprocal rank fusion: merge several rankings into one (Cormack et al. 2009, SIGIR)."""

from collections.abc import Container, Iterable
from typing import Final

# A tag at rank r (from 0) of a list gets 1 / (60 + r + 1).
FUSION: Final = 60


def fuse(lists: Iterable[Iterable[str]], counted: Container[str]) -> dict[str, float]:
    """The sum over the lists of 1 / (60 + rank) for each tag in `counted`; other tags take no rank."""
    scores: dict[str, float] = {}
    for one in lists:
        for rank, tag_id in enumerate((tag_id for tag_id in one if tag_id in counted), start=1):
            scores[tag_id] = scores.get(tag_id, 0.0) + 1 / (FUSION + rank)
    return scores
