"""Compare a taxonomy with a file: tags that are added, changed, replaced by others and retired.

The order of aliases, parents and scopes is not a change: SKOS has none. Everything is on disk, so a million tags are
compared in bounded memory.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from tagbus.stream.contract.codec import encode, parse
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import shorten
from tagbus.stream.vocabulary.entry import Deprecated, Entry, Read, Wrong
from tagbus.stream.vocabulary.scratch import Scratch, Value

Kind: TypeAlias = Literal["added", "changed", "replaced", "retired"]

# Retired last: a tag's replacement exists before the tag is retired.
ORDER: Final[tuple[Kind, ...]] = ("added", "changed", "replaced", "retired")

_SCHEMA: Final = """
CREATE TABLE before (id TEXT PRIMARY KEY, digest BLOB, value BLOB, replaced INTEGER, place TEXT) WITHOUT ROWID;
CREATE TABLE after (id TEXT, digest BLOB, value BLOB, replaced INTEGER, place TEXT);
CREATE TABLE gone (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE edge (child TEXT, parent TEXT);
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A changed tag: `before` is None if it is new, `after` if it is retired."""

    id: str
    before: Tag | None
    after: Tag | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of tags by kind of change.

    `replaced`: retired in favour of others, of which `replaced_now` are in force now; `before`: how many are in force
    now.
    """

    added: int
    changed: int
    replaced: int
    retired: int
    unchanged: int
    before: int
    replaced_now: int = 0

    @property
    def total(self) -> int:
        """The number of records to write."""
        return self.added + self.changed + self.replaced + self.retired

    @property
    def leaving(self) -> int:
        """The number of tags that cease to be in force."""
        return self.replaced_now + self.retired

    def __str__(self) -> str:
        replaced = f"{self.replaced} replaced, " if self.replaced else ""
        return (
            f"{self.added} added, {self.changed} changed, {replaced}{self.retired} retired, {self.unchanged} unchanged"
        )


class Comparison:
    """Two taxonomies; a context manager. `keep`: keep tags that the file does not name."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self.scratch = Scratch(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.scratch.__exit__(kind, error, trace)

    def load_before(self, tags: Iterable[tuple[str, Tag | None, str]]) -> None:
        """Load the existing taxonomy: id, tag and place of each record, in order; None retires it."""
        self.scratch.fill(
            "INSERT OR REPLACE INTO before VALUES (?, ?, ?, ?, ?)",
            ((tag_id, *_stored(tag), place) for tag_id, tag, place in tags),
        )
        self.scratch.execute("DELETE FROM before WHERE value IS NULL")

    def load_after(self, reads: Iterable[Read], wrong: Callable[[Wrong], None]) -> None:
        """Load the file. `wrong` is called for each invalid tag, or one that occurs again with other fields."""
        self.scratch.fill("INSERT INTO after VALUES (?, ?, ?, ?, ?)", self._entries(reads, wrong))
        self.scratch.execute("CREATE INDEX after_id ON after (id)")
        for tag_id, place, first, kinds in self.scratch.rows(
            "SELECT id, MAX(place), MIN(place), COUNT(DISTINCT digest) FROM after GROUP BY id HAVING COUNT(*) > 1"
        ):
            if kinds != 1:
                wrong(Wrong(str(place), f"id: {shorten(tag_id)} is at {first!s} as well, and not the same"))
        self.scratch.execute("DELETE FROM after WHERE rowid NOT IN (SELECT MIN(rowid) FROM after GROUP BY id)")
        self.scratch.execute("DELETE FROM gone WHERE id IN (SELECT id FROM after)")

    @property
    def staying(self) -> str:
        """A query of the ids of existing tags that stay where the file does not name them."""
        return f"SELECT id FROM before WHERE replaced OR ({int(self._keep)} AND id NOT IN (SELECT id FROM gone))"  # noqa: S608 - a number

    def is_empty(self) -> bool:
        """Whether the file names no tag, not even to retire it."""
        return not self.scratch.number("SELECT EXISTS (SELECT 1 FROM after) OR EXISTS (SELECT 1 FROM gone)")

    def counts(self) -> Counts:
        """Count the tags that are added, changed, retired and unchanged."""
        before = self.scratch.number("SELECT COUNT(*) FROM before WHERE NOT replaced")
        added, changed, replaced, retired = (self._count(kind) for kind in ORDER)
        changed_now, replaced_now = (self._count(kind, " AND NOT before.replaced") for kind in ("changed", "replaced"))
        unchanged = before - changed_now - replaced_now - retired
        return Counts(added, changed, replaced, retired, unchanged, before, replaced_now)

    def changes(self, kind: Kind) -> Iterator[Change]:
        """The tags with this kind of change, by id."""
        columns = "before.id, before.value, NULL" if kind == "retired" else "after.id, before.value, after.value"
        for tag_id, before, after in self.scratch.rows(f"SELECT {columns} {self._where(kind)} ORDER BY 1"):
            yield Change(str(tag_id), _tag(before), _tag(after))

    def before(self) -> Iterator[tuple[Tag, str]]:
        """The existing tags, by id, with the place of each."""
        for value, place in self.scratch.rows("SELECT value, place FROM before ORDER BY id"):
            yield _parsed(value), str(place)

    def after(self) -> Iterator[Tag]:
        """The file's tags, by id."""
        for (value,) in self.scratch.rows("SELECT value FROM after ORDER BY id"):
            yield _parsed(value)

    def replaced(self) -> Iterator[Tag]:
        """The tags that others replace once the file is imported."""
        for (value,) in self.scratch.rows(
            "SELECT value FROM after WHERE replaced UNION ALL"
            " SELECT value FROM before WHERE replaced AND id NOT IN (SELECT id FROM after)"
        ):
            yield _parsed(value)

    def _count(self, kind: Kind, more: str = "") -> int:
        return self.scratch.number(f"SELECT COUNT(*) {self._where(kind)}{more}")

    def _where(self, kind: Kind) -> str:
        match kind:
            case "added":
                return f"{_AFTER} WHERE before.id IS NULL AND NOT after.replaced"
            case "changed":
                return f"{_AFTER} WHERE before.digest <> after.digest AND NOT after.replaced"
            case "replaced":
                return f"{_AFTER} WHERE before.digest IS NOT after.digest AND after.replaced"
            case "retired":
                missing = "before.id IN (SELECT id FROM gone)"
                if not self._keep:
                    missing = f"({missing} OR after.id IS NULL)"
                return f"FROM before LEFT JOIN after ON before.id = after.id WHERE NOT before.replaced AND {missing}"

    def _entries(self, reads: Iterable[Read], wrong: Callable[[Wrong], None]) -> Iterator[tuple[Value, ...]]:
        for one in reads:
            match one:
                case Wrong():
                    wrong(one)
                case Deprecated():
                    self.scratch.execute("INSERT OR IGNORE INTO gone VALUES (?)", (one.id,))
                case Entry():
                    for parent in one.tag.parents:
                        self.scratch.execute("INSERT INTO edge VALUES (?, ?)", (one.tag.id, parent))
                    yield one.tag.id, *_stored(one.tag), one.place


_AFTER: Final = "FROM after LEFT JOIN before ON before.id = after.id"


def _stored(tag: Tag | None) -> tuple[bytes | None, bytes | None, bool]:
    """Digest and JSON of a tag, and whether others replace it."""
    return (None, None, False) if tag is None else (_digest(tag), encode(tag), bool(tag.replaced_by))


def _digest(tag: Tag) -> bytes:
    """A hash that does not depend on the order of lists and names."""
    ordered = tag.model_copy(
        update={
            "aliases": tuple(sorted(tag.aliases)),
            "parents": tuple(sorted(tag.parents)),
            "scopes": tuple(sorted(tag.scopes)),
            "replaced_by": tuple(sorted(tag.replaced_by)),
            "names": dict(sorted(tag.names.items())),
        }
    )
    return hashlib.blake2b(encode(ordered), digest_size=16).digest()


def _tag(value: Value) -> Tag | None:
    return None if value is None else _parsed(value)


def _parsed(value: Value) -> Tag:
    return parse(value if isinstance(value, bytes) else b"", Tag)
