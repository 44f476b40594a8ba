"""What came last, by key: bounded in number, cheap for each record."""

from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values that were put last, at most `limit`, and of those the younger half at least.

    Two generations: the younger half and the older. When the younger is full it becomes the older, and the older is
    forgotten. That takes no list of what is how old, and half the time of an OrderedDict.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: K) -> V | None:
        """The value, None where there is none."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, value: V) -> bool:
        """Set the value. True when an older half was forgotten for it."""
        young = self._young
        young[key] = value
        if len(young) < self._half:
            return False
        self.turn()
        return True

    def drop(self, key: K) -> None:
        """Forget one."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def turn(self) -> None:
        """Forget the older half; the younger is the older one now."""
        self._old, self._young = self._young, {}

    def resize(self, limit: int) -> None:
        """Hold at most so many from now on, the younger rather than the older."""
        self._half = max(1, limit // 2)
        if len(self._young) >= self._half:
            self._old, self._young = dict(islice(self._young.items(), len(self._young) - self._half, None)), {}
        elif len(self._old) > self._half:
            self._old = dict(islice(self._old.items(), len(self._old) - self._half, None))
