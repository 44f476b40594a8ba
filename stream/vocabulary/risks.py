"""Find changes of an import that are most likely those of a wrong or partial file: only --force publishes them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tagbus.stream.contract.fields import widens
from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.entry import SHOWN
from tagbus.stream.vocabulary.hierarchy import listed

# Tags that exist after the import: those that others replace stay where the file does not name them.
_EXISTS: Final = "(next IN (SELECT id FROM after) OR next IN ({staying}))"
_CHANGED: Final = (
    "child IN (SELECT after.id FROM after LEFT JOIN before ON before.id = after.id"
    " WHERE before.digest IS NOT after.digest)"
)
_BEFORE: Final = "(SELECT id FROM before)"
# Followed backwards, from the successors at which a chain ends.
_REACHING: Final = (
    "(WITH RECURSIVE reaching(id) AS (SELECT next FROM successor WHERE next NOT IN (SELECT child FROM successor)"
    " UNION SELECT child FROM successor JOIN reaching ON next = reaching.id) SELECT id FROM reaching)"
)


@dataclass(frozen=True, slots=True)
class Risk:
    """What an import would do, how many items it would do that to, and the first of them. `item`: what they are."""

    what: str
    count: int
    ids: tuple[str, ...]
    item: str = "tag"

    def __str__(self) -> str:
        items = self.item if self.count == 1 else f"{self.item}s"
        return f"{self.what.format(f'{self.count} {items}')} ({listed(self.ids, self.count)})"


@dataclass(slots=True)
class Found:
    """Counts the items of a risk and keeps the first. `item`: what they are."""

    item: str
    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, item_id: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.ids) < SHOWN:
            self.ids.append(item_id)

    def risk(self, what: str) -> Iterator[Risk]:
        """The risk, if there is any item."""
        if self.count:
            yield Risk(what, self.count, tuple(self.ids), self.item)


def risks(comparison: Comparison) -> Iterator[Risk]:
    """The risks of an import, one for each kind."""
    shown, back = Found("tag"), Found("tag")
    for change in comparison.changes("changed"):
        if (old := change.before) is None or (new := change.after) is None:
            continue
        if widens(old.scopes, new.scopes):
            shown.add(change.id)
        if old.replaced_by:
            back.add(change.id)
    yield from shown.risk("show {} to contents that do not see them now")
    yield from back.risk("bring back {} that others replace now")
    yield from _successors(comparison)


def _successors(comparison: Comparison) -> Iterator[Risk]:
    """Tags whose successors lead nowhere. Those that did so before, and stay as they are, are no risk."""
    scratch = comparison.scratch
    scratch.execute("CREATE TABLE successor (child TEXT, next TEXT, PRIMARY KEY (next, child)) WITHOUT ROWID")
    scratch.fill(
        "INSERT OR IGNORE INTO successor VALUES (?, ?)",
        ((tag.id, one) for tag in comparison.replaced() for one in tag.replaced_by),
    )
    exists = _EXISTS.format(staying=comparison.staying)
    for what, where in (
        (
            "replace {} by tags that are neither in the file nor kept on the topic",
            f"FROM successor WHERE NOT {exists} AND ({_CHANGED} OR next IN {_BEFORE})",
        ),
        ("replace {} in a circle", f"FROM successor WHERE {_CHANGED} AND child NOT IN {_REACHING}"),
    ):
        if count := scratch.number(f"SELECT COUNT(DISTINCT child) {where}"):
            found = scratch.rows(f"SELECT DISTINCT child {where} ORDER BY child LIMIT {SHOWN}")
            yield Risk(what, count, tuple(str(one) for (one,) in found))
