"""Find changes of an import that are most likely those of a wrong or partial file: only --force publishes them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.entry import SHOWN
from tagbus.stream.vocabulary.hierarchy import listed

# Tags that exist after the import: those that others replace stay where the file does not name them.
_EXISTS: Final = (
    "(next IN (SELECT id FROM after) OR next IN"
    " (SELECT id FROM before WHERE (replaced OR {keep}) AND id NOT IN (SELECT id FROM gone)))"
)
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


def widens(old: Collection[str], new: Collection[str]) -> bool:
    """Whether contents see something of the new scopes that they do not see with the old ones."""
    return bool(old) and not (new and set(new) <= set(old))


def risks(comparison: Comparison, *, keep: bool) -> Iterator[Risk]:
    """The risks of an import, one for each kind. `keep`: whether tags that the file does not name stay."""
    count, ids = 0, list[str]()
    for change in comparison.changes("changed"):
        old = change.before.scopes if change.before else ()
        new = change.after.scopes if change.after else ()
        if widens(old, new):
            count += 1
            if len(ids) < SHOWN:
                ids.append(change.id)
    if count:
        yield Risk("show {} to contents that do not see them now", count, tuple(ids))
    yield from _successors(comparison, keep=keep)


def _successors(comparison: Comparison, *, keep: bool) -> Iterator[Risk]:
    """Tags whose successors lead nowhere. Those that did so before, and stay as they are, are no risk."""
    scratch = comparison.scratch
    scratch.execute("CREATE TABLE successor (child TEXT, next TEXT, PRIMARY KEY (next, child)) WITHOUT ROWID")
    scratch.fill(
        "INSERT OR IGNORE INTO successor VALUES (?, ?)",
        ((tag.id, one) for tag in comparison.replaced() for one in tag.replaced_by),
    )
    exists = _EXISTS.format(keep=int(keep))
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
