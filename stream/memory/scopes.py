"""Visibility: a content sees the points without a scope, and those that share one of its scopes.

No content sees a tag that others have replaced: it stays in memory because its exemplars lead to its successors
(recall/taxonomy/successors.py).
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from tagbus.stream.memory.hits import KEY, Carried, Flags, Ints
from tagbus.stream.memory.store import Payload, Scopes

# The field of a tag's payload that lists its replacements; a tag that has any is retired.
REPLACED: Final = "replaced_by"

# The scopes that see a point; empty: all contents do. None: no content does.
Audience = frozenset[str] | None


def sees(scopes: frozenset[str], payload: Payload) -> bool:
    """Whether a content of these scopes sees a point with that payload."""
    return within(audience(payload), scopes)


def audience(payload: Payload) -> Audience:
    """The audience of a point with that payload."""
    if replaced_by(payload):
        return None
    scopes = payload.get("scopes")
    return frozenset(strings(scopes)) if scopes else frozenset()


def within(seen_by: Audience, scopes: frozenset[str]) -> bool:
    """Whether a content of these scopes belongs to an audience."""
    return seen_by is not None and (not seen_by or not seen_by.isdisjoint(scopes))


def replaced_by(payload: Payload) -> tuple[str, ...]:
    """The ids of the tags that replace a retired one; empty for one in force."""
    successors = payload.get(REPLACED)
    return tuple(strings(successors)) if successors else ()


def carried_ids(carried: Carried, key: str, payload: Payload) -> list[str]:
    """The ids of the tags that a point carries, each once."""
    if carried.tags is None:
        return []
    return [key] if carried.tags == KEY else list(dict.fromkeys(strings(payload.get(carried.tags))))


def groups(scopes: Scopes, queries: int) -> Iterator[tuple[frozenset[str] | None, Ints]]:
    """The queries of each set of scopes: most batches have but one."""
    if scopes is None:
        yield None, np.arange(queries)
        return
    found: dict[frozenset[str], list[int]] = {}
    for query, one in enumerate(scopes):
        found.setdefault(one, []).append(query)
    for one, members in found.items():
        yield one, np.array(members, np.int64)


class ScopeSets:
    """Numbers the audiences of rows: there are few, however many rows."""

    def __init__(self) -> None:
        self._numbers: dict[Audience, int] = {}
        self._sets: list[Audience] = []
        # The number of rows, by audience.
        self._rows: list[int] = []
        self._total = 0
        self._unused: list[int] = []
        # The audiences that include a scope.
        self._members: dict[str, set[int]] = {}

    def enter(self, seen_by: Audience) -> int:
        """Count one more row for an audience; returns its number."""
        number = self._numbers.get(seen_by)
        if number is None:
            number = self._numbers[seen_by] = self._new()
            self._sets[number] = seen_by
            for scope in seen_by or ():
                self._members.setdefault(scope, set()).add(number)
        self._rows[number] += 1
        self._total += 1
        return number

    def leave(self, number: int) -> None:
        """Count one row less for that audience."""
        self._rows[number] -= 1
        self._total -= 1
        if self._rows[number]:
            return
        for scope in self._sets[number] or ():
            self._members[scope].discard(number)
            if not self._members[scope]:
                del self._members[scope]
        del self._numbers[self._sets[number]]
        self._unused.append(number)

    def visible(self, scopes: frozenset[str] | None) -> Flags:
        """The audiences whose rows a content of these scopes sees, bool by number; None: all but those that no content
        sees."""
        seen = np.full(len(self._rows), scopes is None)
        seen[list(self._numbered(None) if scopes is None else self._seen(scopes))] = scopes is not None
        return seen

    def count(self, scopes: frozenset[str] | None) -> int:
        """How many rows a content of these scopes sees; None: all but those that no content sees."""
        if scopes is None:
            return self._total - sum(self._rows[number] for number in self._numbered(None))
        return sum(self._rows[number] for number in self._seen(scopes))

    def _new(self) -> int:
        if self._unused:
            return self._unused.pop()
        self._sets.append(frozenset())
        self._rows.append(0)
        return len(self._rows) - 1

    def _seen(self, scopes: frozenset[str]) -> set[int]:
        return self._numbered(frozenset()).union(*(self._members.get(scope, ()) for scope in scopes))

    def _numbered(self, seen_by: Audience) -> set[int]:
        number = self._numbers.get(seen_by)
        return set() if number is None else {number}


def strings(value: object) -> list[str]:
    """The strings in a payload's list, if it is one."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
