"""The row of a tag: its number of contents, over time, their ids, and their other tags.

A row is one record of the changelog, so that it changes atomically. It keeps, by partition of `tagged`, the offset up
to which changes are applied: a repeated change does nothing. A row is never deleted, or a repeated change would be
applied again.

Lists are bounded: the newest contents, the most confident ones, the other tags with the highest counts. An item that
was left out does not come back when another is removed: `*_whole` is true if nothing was ever left out.
"""

import heapq
from dataclasses import dataclass

from pydantic import BaseModel

from tagbus.stream.config import ViewsSettings
from tagbus.stream.views.contents import NOWHERE, Change, ContentEntry


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a row."""

    contents: int
    together: int
    step: int
    kept: int

    @classmethod
    def of(cls, settings: ViewsSettings) -> "Limits":
        """The configured limits."""
        return cls(settings.contents, settings.together, settings.step_seconds, settings.kept_seconds)


class TagRow(BaseModel):
    """The row of a tag; changed in place within a batch.

    `steps`: contents by the start of their time's step, in seconds. `contents`: confidence and time (ms) by id.
    `together`: by other tag, contents that have both.
    """

    name: str = ""
    count: int = 0
    applied: dict[int, int] = {}
    steps: dict[int, int] = {}
    contents: dict[str, tuple[float, int]] = {}
    contents_whole: bool = True
    together: dict[str, int] = {}
    together_whole: bool = True

    def to_json(self) -> bytes:
        """The stored form."""
        return self.model_dump_json().encode()

    def newest(self, most: int) -> list[str]:
        """The ids of the newest contents, newest first."""
        return heapq.nsmallest(most, self.contents, lambda one: (-self.contents[one][1], one))

    def surest(self, most: int) -> list[str]:
        """The ids of the contents with the highest confidence, highest first."""
        return heapq.nsmallest(most, self.contents, lambda one: (-self.contents[one][0], one))


def apply(row: TagRow, change: Change, limits: Limits) -> bool:
    """Apply a change to the row. Returns False for one that is applied already."""
    if change.offset <= row.applied.get(change.partition, NOWHERE):
        return False
    row.applied[change.partition] = change.offset
    if change.before is not None:
        _take(row, change.content, change.before, limits)
    if change.after is not None:
        _add(row, change.content, change.after, limits)
        row.name = change.name
    return True


def trim(row: TagRow, limits: Limits) -> None:
    """Drop items beyond the limits."""
    if len(row.contents) > 2 * limits.contents:
        kept = {*row.newest(limits.contents), *row.surest(limits.contents)}
        row.contents_whole = row.contents_whole and len(kept) == len(row.contents)
        row.contents = {one: entry for one, entry in row.contents.items() if one in kept}
    if len(row.together) > limits.together:
        best = heapq.nsmallest(limits.together, row.together.items(), lambda one: (-one[1], one[0]))
        row.together, row.together_whole = dict(best), False
    if row.steps:
        oldest = max(row.steps) - limits.kept
        row.steps = {start: count for start, count in row.steps.items() if start >= oldest and count > 0}


def _take(row: TagRow, content: str, entry: ContentEntry, limits: Limits) -> None:
    row.count -= 1
    row.contents.pop(content, None)
    start = _step(entry, limits)
    if start in row.steps:
        row.steps[start] -= 1
    for other in entry.together:
        if other in row.together:
            row.together[other] -= 1
            if row.together[other] <= 0:
                del row.together[other]


def _add(row: TagRow, content: str, entry: ContentEntry, limits: Limits) -> None:
    row.count += 1
    row.contents[content] = (entry.confidence, entry.time)
    start = _step(entry, limits)
    row.steps[start] = row.steps.get(start, 0) + 1
    for other in entry.together:
        row.together[other] = row.together.get(other, 0) + 1


def _step(entry: ContentEntry, limits: Limits) -> int:
    return entry.time // 1000 // limits.step * limits.step
