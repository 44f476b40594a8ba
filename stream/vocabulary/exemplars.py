"""Compare a corpus with the existing exemplars: additions, changes and unknown tags.

On disk, as for tags; of existing exemplars only hashes and scopes are kept.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from pydantic_core import from_json, to_json

from tagbus.stream.contract.codec import encode, parse
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.fields import LIST_ITEMS, Source, widens
from tagbus.stream.errors import shorten
from tagbus.stream.vocabulary.corpus import Known
from tagbus.stream.vocabulary.entry import SHOWN, Remarks, Wrong
from tagbus.stream.vocabulary.risks import Found, Risk
from tagbus.stream.vocabulary.scratch import Scratch, Value

# The limit of unknown tags counted separately; a corpus may have any number.
UNKNOWN: Final = 100_000

_SCHEMA: Final = """
CREATE TABLE tag (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE name (name TEXT, id TEXT, PRIMARY KEY (name, id)) WITHOUT ROWID;
CREATE TABLE before (key TEXT PRIMARY KEY, digest BLOB, decided BLOB, scopes TEXT) WITHOUT ROWID;
CREATE TABLE after (key TEXT PRIMARY KEY, digest BLOB, value BLOB, place TEXT, bare INTEGER);
"""
_NAMED: Final = "SELECT id FROM name WHERE name = ?"
_CHANGED: Final = (
    "FROM after LEFT JOIN before USING (key)"
    " WHERE CASE WHEN after.bare THEN before.decided ELSE before.digest END IS NOT after.digest"
)


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of a corpus's exemplars by kind of change."""

    added: int
    changed: int
    unchanged: int

    @property
    def total(self) -> int:
        """The number of records to write."""
        return self.added + self.changed

    def __str__(self) -> str:
        return f"{self.added} added, {self.changed} changed, {self.unchanged} unchanged"


@dataclass(slots=True)
class Unknown:
    """Tags named in a corpus that are not in force."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, tag: str) -> None:
        """Count one use."""
        if tag in self.counts or len(self.counts) < UNKNOWN:
            self.counts[tag] += 1

    def __str__(self) -> str:
        named = ", ".join(f"{shorten(tag, 120)} ({count})" for tag, count in self.counts.most_common(SHOWN))
        more = ", …" if len(self.counts) > SHOWN else ""
        return f"tags that are not in force: {len(self.counts)}, by their uses: {named}{more}"


class Corpus:
    """A corpus and the existing exemplars; a context manager. `source`: who made the corpus's decisions."""

    def __init__(self, source: Source) -> None:
        self._source: Source = source
        self._scratch = Scratch(_SCHEMA)
        self.unknown = Unknown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.__exit__(kind, error, trace)

    def load_tags(self, tags: Iterable[Tag]) -> None:
        """Load the tags that resolve the corpus's ids and labels. A replaced id means its replacements."""
        for tag in tags:
            self._scratch.execute("INSERT OR IGNORE INTO tag VALUES (?)", (tag.id,))
            for name in set() if tag.replaced_by else {tag.name, *tag.names.values()}:
                self._scratch.execute("INSERT OR IGNORE INTO name VALUES (?, ?)", (_composed(name), tag.id))

    def load_before(self, exemplars: Iterable[tuple[str, Exemplar | None]]) -> None:
        """Load the existing exemplars: key and exemplar of each record, in order; None withdraws it."""
        self._scratch.fill(
            "INSERT OR REPLACE INTO before VALUES (?, ?, ?, ?)",
            ((key, *((None, None, None) if one is None else _kept(one))) for key, one in exemplars),
        )
        self._scratch.execute("DELETE FROM before WHERE digest IS NULL")

    def load_after(self, contents: Iterable[Known | Wrong], wrong: Callable[[Wrong], None], remarks: Remarks) -> None:
        """Load the corpus. `wrong` is called for each invalid content, or one with the id of another."""
        for one in contents:
            if isinstance(one, Wrong):
                wrong(one)
            elif "source" in one.exemplar.model_fields_set and one.exemplar.source != self._source:
                # The machine's would become decisions of people, which outvote all of the machine's.
                wrong(
                    Wrong(
                        one.place,
                        f"source: '{one.exemplar.source}' is wrong, expected '{self._source}', as --source says",
                    )
                )
            elif (found := self._resolved(one, remarks)) is not None and (error := self._put(one.place, found)):
                wrong(error)

    def counts(self) -> Counts:
        """Count the exemplars that are added, changed and unchanged."""
        whole = self._scratch.number("SELECT COUNT(*) FROM after")
        total = self._scratch.number(f"SELECT COUNT(*) {_CHANGED}")
        added = self._scratch.number("SELECT COUNT(*) FROM after WHERE key NOT IN (SELECT key FROM before)")
        return Counts(added, total - added, whole - total)

    def changes(self) -> Iterator[Exemplar]:
        """The exemplars that are added or changed, in the order of the corpus."""
        for (value,) in self._scratch.rows(f"SELECT value {_CHANGED} ORDER BY after.rowid"):
            yield _parsed(value)

    def risks(self) -> Iterator[Risk]:
        """Exemplars that contents would see which do not see them now: a corpus most likely lacks their scopes."""
        found = Found("exemplar")
        for value, scopes in self._scratch.rows(f"SELECT value, scopes {_CHANGED} AND scopes <> ? ORDER BY key", ("",)):
            one = _parsed(value)
            if not _is_bare(one) and widens(_read(scopes), one.scopes):
                found.add(one.id)
        yield from found.risk("show {} to contents that do not see them now")

    def _resolved(self, known: Known, remarks: Remarks) -> Exemplar | None:
        """The exemplar with labels resolved to ids; None if it has no decision."""
        one = known.exemplar
        for tag in (*one.accepted, *one.rejected):
            if not self._scratch.number("SELECT COUNT(*) FROM tag WHERE id = ?", (tag,)):
                self.unknown.add(tag)
        accepted = tuple(dict.fromkeys((*one.accepted, *self._ids(known.labels))))
        if not accepted and not one.rejected:
            remarks.add("contents without a known tag are left out", known.place)
            return None
        return one.model_copy(update={"accepted": accepted, "source": self._source})

    def _ids(self, labels: Iterable[str]) -> Iterator[str]:
        for label in labels:
            found = [str(tag) for (tag,) in self._scratch.rows(_NAMED, (_composed(label),))]
            if len(found) == 1:
                yield found[0]
            else:
                # None, or one of several that have the name.
                self.unknown.add(label)

    def _put(self, place: str, one: Exemplar) -> Wrong | None:
        """Store an exemplar; the tags of a repeated content are merged."""
        if both := {*one.accepted} & {*one.rejected}:
            return Wrong(place, f"rejected: {shorten(min(both))} is wrong, expected no tag that is accepted too")
        for value, first in self._scratch.rows("SELECT value, place FROM after WHERE key = ?", (one.key,)):
            other = _parsed(value)
            if (error := _conflict(other, str(first), one)) is not None:
                return Wrong(place, error)
            one = _joined(other, one)
        for verdict, tags in (("accepted", one.accepted), ("rejected", one.rejected)):
            if len(tags) > LIST_ITEMS:
                return Wrong(place, f"{verdict}: {len(tags)} tags is wrong, expected at most {LIST_ITEMS}")
        self._scratch.execute(
            "INSERT INTO after VALUES (?, ?, ?, ?, ?) ON CONFLICT (key)"
            " DO UPDATE SET digest = excluded.digest, value = excluded.value",
            (one.key, _digest(_decided(one) if _is_bare(one) else one), encode(one), place, _is_bare(one)),
        )
        return None


def _composed(label: str) -> str:
    """A label with composed letters (NFC), which look the same as decomposed ones."""
    return unicodedata.normalize("NFC", label)


def _conflict(first: Exemplar, place: str, second: Exemplar) -> str | None:
    """The reason that two rows of one id, the first of them at `place`, are not of one content."""
    at = f"{shorten(second.id)} is at {place} as well, with"
    if (first.title, first.text) != (second.title, second.text):
        return f"id: {at} another text"
    # One row's scopes for the tags of both would show the text to contents that the other row keeps it from.
    if set(first.scopes) != set(second.scopes):
        return f"scopes: {at} other scopes"
    both = {*first.accepted, *second.accepted} & {*first.rejected, *second.rejected}
    return f"rejected: {at} {shorten(min(both))} accepted in one row and rejected in the other" if both else None


def _joined(first: Exemplar, second: Exemplar) -> Exemplar:
    """Both rows' tags, and the later time: a row without one says nothing about it."""
    accepted = tuple(dict.fromkeys((*first.accepted, *second.accepted)))
    rejected = tuple(dict.fromkeys((*first.rejected, *second.rejected)))
    times = [one.time for one in (first, second) if one.time is not None]
    return second.model_copy(update={"accepted": accepted, "rejected": rejected, "time": max(times, default=None)})


def _is_bare(one: Exemplar) -> bool:
    """Whether it is a decision of people without a text: the content keeps the text and the scopes that it has."""
    return one.source == "people" and not (one.title or one.text)


def _decided(one: Exemplar) -> Exemplar:
    return one.model_copy(update={"title": "", "text": "", "scopes": ()})


def _kept(one: Exemplar) -> tuple[bytes, bytes, str]:
    return _digest(one), _digest(_decided(one)), _written(one.scopes)


def _written(scopes: Sequence[str]) -> str:
    return to_json(scopes).decode() if scopes else ""


def _read(scopes: Value) -> list[str]:
    found: list[str] = from_json(str(scopes))
    return found


def _digest(one: Exemplar) -> bytes:
    """A hash independent of the order of lists and the time: the same decision is not a change."""
    ordered = one.model_copy(
        update={
            "accepted": tuple(sorted(one.accepted)),
            "rejected": tuple(sorted(one.rejected)),
            "scopes": tuple(sorted(one.scopes)),
            "time": None,
        }
    )
    return hashlib.blake2b(encode(ordered), digest_size=16).digest()


def _parsed(value: Value) -> Exemplar:
    return parse(value if isinstance(value, bytes) else b"", Exemplar)
