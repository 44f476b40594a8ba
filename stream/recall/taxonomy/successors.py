"""Successors: the tags that replace retired ones.

A point that carries a retired tag counts for its successor, over several steps if that is retired too (merged, or moved
to a new id). With several successors (a split) it is not known which one is right: no exemplar votes for any of them,
and they are found by their own names and exemplars. If all of them have become one tag again, that tag gets the votes.
A cycle, a path of more than STEPS tags and a tag that is not in force lead nowhere.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

# Limit of retired tags followed to the successors of one.
STEPS: Final = 100

# The tags in force that a retired one leads to; None among them: a path that leads nowhere.
Ends = frozenset[str | None]


def ends_of(
    tag_id: str, replaced: Mapping[str, Sequence[str]], there: Callable[[str], bool]
) -> tuple[Ends, Sequence[str]]:
    """Where a retired tag leads; and a path that leads nowhere because it is cyclic or too long.

    `replaced`: the successors of each retired tag. `there`: whether a tag without successors is in force.
    """
    ends: set[str | None] = set()
    ways: list[tuple[str, ...]] = [(tag_id,)]
    looked = 0
    while ways:
        way = ways.pop()
        looked += 1
        if looked > STEPS or len(way) != len(set(way)):
            return frozenset((*ends, None)), way
        successors = replaced.get(way[-1])
        if successors is None:
            ends.add(way[-1] if there(way[-1]) else None)
        else:
            ways += [(*way, one) for one in successors]
    return frozenset(ends), ()


def only(ends: Iterable[str | None]) -> str | None:
    """The common end of all paths; None if they end differently, or one leads nowhere."""
    found = set(ends)
    return found.pop() if len(found) == 1 else None


def followed(
    accepted: Sequence[str], rejected: Sequence[str], replaced: Mapping[str, Ends]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """People's accepted and rejected tags of a content, resolved to successors; `replaced`: where a retired tag leads.

    Accepting a tag accepts its successor, and rejecting it rejects all tags that it was split into. A decision on the
    successor itself takes precedence, and an inherited acceptance takes precedence over an inherited rejection: two
    merged tags may have been decided differently.
    """
    said_yes = [tag_id for tag_id in accepted if tag_id not in replaced]
    said_no = {tag_id for tag_id in rejected if tag_id not in replaced}
    heirs = [only(replaced[tag_id]) for tag_id in accepted if tag_id in replaced]
    yes = dict.fromkeys([*said_yes, *(heir for heir in heirs if heir is not None and heir not in said_no)])
    no = {end for tag_id in rejected for end in replaced.get(tag_id, ()) if end is not None}
    return tuple(yes), frozenset(said_no | (no - yes.keys()))
