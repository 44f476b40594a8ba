"""What the views must hold, counted again by a plain consumer that knows the contract of `tagged` alone."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.support import consume_all

Contents = dict[str, dict[str, float]]


@dataclass
class Recount:
    """By content its tags and their confidences, and its time; and what follows by tag."""

    contents: Contents = field(default_factory=dict)
    times: dict[str, datetime] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    together: Counter[tuple[str, str]] = field(default_factory=Counter)

    def newest(self, tag: str) -> list[str]:
        """The contents of a tag by time, the newest first."""
        return sorted(self._with(tag), key=lambda one: (-self.times[one].timestamp(), one))

    def surest(self, tag: str) -> list[str]:
        """The contents of a tag by confidence, the highest first."""
        return sorted(self._with(tag), key=lambda one: (-self.contents[one][tag], one))

    def between(self, tag: str, start: datetime, end: datetime) -> int:
        """How many contents of a tag have their time in a window."""
        return sum(start <= self.times[one] < end for one in self._with(tag))

    def window(self, tag: str, item: dict[str, object]) -> dict[str, object]:
        """What a window in an answer must say, from its own start and end."""
        start, end = (datetime.fromisoformat(str(item[name])) for name in ("start", "end"))
        counted, previous = self.between(tag, start, end), self.between(tag, start - (end - start), start)
        trend = (counted - previous) / max(previous, 1)
        return item | {"contents": counted, "previous": previous, "trend": trend}

    def _with(self, tag: str) -> Iterator[str]:
        return (content for content, tags in self.contents.items() if tag in tags)


def recount(address: str, topic: str) -> Recount:
    """The last committed record of each content, and its tags counted."""
    found = Recount()
    for message in consume_all(address, topic):
        key, value = (message.key() or b"").decode(), message.value()
        if key.startswith("tagbus-helm-test-"):
            continue
        found.contents.pop(key, None)
        if value is not None:
            result = json.loads(value)
            found.contents[key] = {tag["id"]: tag["confidence"] for tag in result["tags"]}
            # A content without a time is as old as its result, and none is newer.
            record = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            own = result.get("time")
            found.times[key] = record if own is None else min(datetime.fromisoformat(own), record)
    for tags in found.contents.values():
        found.counts.update(tags.keys())
        found.together.update((one, other) for one in tags for other in tags if one != other)
    return found
