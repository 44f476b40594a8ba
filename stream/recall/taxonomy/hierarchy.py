"""Broader tags: the ancestors of a tag, nearest first. Cycles are not followed."""

from collections.abc import Callable, Iterable
from typing import Final

# Limits of levels above a tag, and of its broader tags in all.
LEVELS: Final = 20
BROADER: Final = 1_000


def broader_of(tag_id: str, parents_of: Callable[[str], Iterable[str]]) -> tuple[list[str], bool]:
    """The broader tags of a tag, nearest first, each once, never itself; and whether it is its own ancestor."""
    found: dict[str, None] = {}
    level, circular = [tag_id], False
    for _ in range(LEVELS):
        above = dict.fromkeys(parent for one in level for parent in parents_of(one))
        circular = circular or tag_id in above
        level = [one for one in above if one not in found and one != tag_id]
        if not level or len(found) + len(level) > BROADER:
            break
        found |= dict.fromkeys(level)
    return list(found), circular
