"""Advice on a file of valid events: entries without effect, or with an effect that the author may not intend.

Unknown fields are accepted on a topic, so that old and new workers share a group. In a file they are usually mistakes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic_core import from_json

from tagbus.stream.contract.circles import circles
from tagbus.stream.contract.codec import Keyed, event_key
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import shorten

# Limits for files of any length: kinds of advice kept, and keys remembered.
KINDS = 20
KEYS = 1_000_000
# Maximum number of ids shown of a cycle.
SHOWN = 8
# Which of two events with the same key counts, if not the last.
_COUNTS = {Content: "the newest version counts", Decision: "of one content the first one counts"}


@dataclass(slots=True)
class _Found:
    """One kind of advice: its first line, its text, and its number of lines."""

    place: str
    text: str
    lines: int = 0


@dataclass(slots=True)
class Advice:
    """Collects advice on one file. `what`: the word for its events: content, tags, exemplars, knowledge or feedback."""

    what: str
    model: type[Event]
    _found: dict[str, _Found] = field(default_factory=dict)
    # The line of each key, by the key's hash.
    _keys: dict[int, str] = field(default_factory=dict)
    # Per field of tags that references others: the ids that each tag references; and the line of each such tag.
    _links: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=lambda: {"parents": {}, "replaced_by": {}})
    _places: dict[str, str] = field(default_factory=dict)
    _looked: bool = False
    _more: bool = False

    def look(self, place: str, value: bytes, event: Keyed) -> None:
        """Check a valid event. `place`: its line; `value`: its JSON."""
        self._looked = True
        self._fields(place, value)
        self._key(place, event)
        if isinstance(event, Tag):
            self._link(place, event)
        if isinstance(event, Exemplar):
            if not event.accepted and not event.rejected:
                self._add("no decision", place, "has no effect: neither `accepted` nor `rejected` names a tag")
            if not event.title and not event.text:
                self._add(
                    "no text",
                    place,
                    "has neither title nor text: after publishing it waits for a decision with the content's text",
                )
        if isinstance(event, Decision) and not (event.decides or event.supersedes or event.replaces or event.has_text):
            self._add("no decision", place, "has no effect: it names no tag and takes nothing back")
        if isinstance(event, Knowledge) and event.valid_until is not None and event.valid_until <= datetime.now(UTC):
            self._add("expired", place, "is no longer used: `valid_until` has passed")

    def lines(self, file: str) -> Iterator[str]:
        """One line for each kind of advice: its first position, and its number of lines."""
        if not self._looked:
            yield f"{file}: holds no {self.what}" + (": no content gets a tag" if self.what == "tags" else "")
        self._circles()
        for found in self._found.values():
            yield f"{found.place}: {found.text}" + (f" ({found.lines} lines)" if found.lines > 1 else "")
        if self._more:
            yield f"{file}: and more of other kinds"

    def _fields(self, place: str, value: bytes) -> None:
        known = self.model.model_fields
        for name in from_json(value):
            if name not in known:
                text = f"{shorten(name)} is not a field of {self.what} and is ignored; fields are {', '.join(known)}"
                self._add(f"field {name}", place, text)

    def _key(self, place: str, event: Keyed) -> None:
        key = event.decision if isinstance(event, Decision) else event_key(event)
        first = self._keys.get(hash(key))
        if first is None:
            if len(self._keys) < KEYS:
                self._keys[hash(key)] = place
            return
        counts = _COUNTS.get(type(event), "the last one counts")
        self._add("key", place, f"{shorten(key)} is already on {first}; {counts}")

    def _link(self, place: str, tag: Tag) -> None:
        for name, ids in (("parents", tag.parents), ("replaced_by", tag.replaced_by)):
            if ids and len(self._links[name]) < KEYS:
                self._links[name][tag.id] = ids
                self._places[tag.id] = place
            else:
                self._links[name].pop(tag.id, None)

    def _circles(self) -> None:
        for name, links in self._links.items():
            for ids in circles(links):
                shown = " -> ".join(map(shorten, ids if len(ids) < SHOWN else [*ids[: SHOWN - 2], "...", ids[-1]]))
                text = f"`{name}` form a cycle, which is not followed: {shown}"
                self._add(f"circle of {name}", self._places[ids[0]], text)

    def _add(self, kind: str, place: str, text: str) -> None:
        if kind not in self._found and len(self._found) >= KINDS:
            self._more = True
            return
        self._found.setdefault(kind, _Found(place, text)).lines += 1
