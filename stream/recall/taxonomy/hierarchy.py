"""Broader tags: what lies above a tag, nearest first. Nothing goes around in a circle."""

from collections.abc import Callable, Iterable
from typing import Final

# Levels above a tag, and broader tags of one in all, that are looked at.
LEVELS: Final = 20
BROADER: Final = 1_000


def broader_of(tag_id: str, parents_of: Callable[[str], Iterable[str]]) -> tuple[list[str], bool]:
    """The broader tags of a tag, nearest first, each once, never itself; and whether it is above itself."""
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
