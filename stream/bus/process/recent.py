"""A bounded mapping that forgets its oldest entries, cheap enough for every record."""

from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps the last values put: at most `limit`, and at least half as many.

    Entries are in two generations. When the younger one is full it becomes the older one, and the older one is dropped.
    That keeps no order of ages, and takes half the time of an OrderedDict.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: K) -> V | None:
        """The value of a key, if there is one."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, value: V) -> bool:
        """Set the value of a key. True if the older generation was dropped for it."""
        young = self._young
        young[key] = value
        if len(young) < self._half:
            return False
        self.turn()
        return True

    def drop(self, key: K) -> None:
        """Forget a key."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def turn(self) -> None:
        """Drop the older generation; the younger one becomes the older."""
        self._old, self._young = self._young, {}

    def resize(self, limit: int) -> None:
        """Hold at most `limit` values from now on; the older ones are dropped first."""
        self._half = max(1, limit // 2)
        if len(self._young) >= self._half:
            self._old, self._young = dict(islice(self._young.items(), len(self._young) - self._half, None)), {}
        elif len(self._old) > self._half:
            self._old = dict(islice(self._old.items(), len(self._old) - self._half, None))
