"""Who sees what: a content sees the points that have no scope, and those that share one of its scopes."""

from collections.abc import Iterator

import numpy as np

from tagbus.stream.memory.hits import KEY, Carried, Flags, Ints
from tagbus.stream.memory.store import Payload, Scopes


def sees(scopes: frozenset[str], payload: Payload) -> bool:
    """Whether a content of these scopes sees a point with that payload."""
    own = scopes_of(payload)
    return not own or not own.isdisjoint(scopes)


def scopes_of(payload: Payload) -> frozenset[str]:
    """The scopes that a payload names."""
    return frozenset(_strings(payload.get("scopes")))


def carried_ids(carried: Carried, key: str, payload: Payload) -> list[str]:
    """The ids of the tags that a point carries, each once."""
    if carried.tags is None:
        return []
    return [key] if carried.tags == KEY else list(dict.fromkeys(_strings(payload.get(carried.tags))))


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
    """The sets of scopes that rows have, as numbers: there are few, however many rows."""

    def __init__(self) -> None:
        self._numbers: dict[frozenset[str], int] = {}
        self._sets: list[frozenset[str]] = []
        # By number: how many rows have that set.
        self._rows: list[int] = []
        self._unused: list[int] = []
        # The sets that a scope is in.
        self._members: dict[str, set[int]] = {}

    def enter(self, scopes: frozenset[str]) -> int:
        """The number of a set that a row more has."""
        number = self._numbers.get(scopes)
        if number is None:
            number = self._numbers[scopes] = self._new()
            self._sets[number] = scopes
            for scope in scopes:
                self._members.setdefault(scope, set()).add(number)
        self._rows[number] += 1
        return number

    def leave(self, number: int) -> None:
        """A row less has that set."""
        self._rows[number] -= 1
        if self._rows[number]:
            return
        for scope in self._sets[number]:
            self._members[scope].discard(number)
            if not self._members[scope]:
                del self._members[scope]
        del self._numbers[self._sets[number]]
        self._unused.append(number)

    def visible(self, scopes: frozenset[str]) -> Flags:
        """Which sets a content of these scopes sees, bool by number."""
        seen = np.zeros(len(self._rows), np.bool_)
        seen[list(self._seen(scopes))] = True
        return seen

    def count(self, scopes: frozenset[str]) -> int:
        """How many rows a content of these scopes sees."""
        return sum(self._rows[number] for number in self._seen(scopes))

    def _new(self) -> int:
        if self._unused:
            return self._unused.pop()
        self._sets.append(frozenset())
        self._rows.append(0)
        return len(self._rows) - 1

    def _seen(self, scopes: frozenset[str]) -> set[int]:
        unscoped = self._numbers.get(frozenset())
        seen = set() if unscoped is None else {unscoped}
        return seen.union(*(self._members.get(scope, ()) for scope in scopes))


def _strings(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
