"""What the views must hold, counted again by a plain consumer that knows the contract of `tagged` alone."""

import json
from collections import Counter
from dataclasses import dataclass, field

from tests.support import consume_all

Contents = dict[str, dict[str, float]]


@dataclass
class Recount:
    """By content its tags and their confidences, and what follows by tag."""

    contents: Contents = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    together: Counter[tuple[str, str]] = field(default_factory=Counter)


def recount(address: str, topic: str) -> Recount:
    """The last committed record of each content, and its tags counted."""
    found = Recount()
    for message in consume_all(address, topic):
        key, value = (message.key() or b"").decode(), message.value()
        if key.startswith("tagbus-helm-test-"):
            continue
        found.contents.pop(key, None)
        if value is not None:
            found.contents[key] = {tag["id"]: tag["confidence"] for tag in json.loads(value)["tags"]}
    for tags in found.contents.values():
        found.counts.update(tags.keys())
        found.together.update((one, other) for one in tags for other in tags if one != other)
    return found
