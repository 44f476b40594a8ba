"""The entries that reading a vocabulary yields, one concept at a time, and the options of a reader."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from tagbus.stream.contract.events import Tag
from tagbus.stream.contract.field_errors import poison
from tagbus.stream.errors import UserError, shorten

# Limits of kinds of remarks kept, and of places or names that a message lists.
KINDS = 20
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """A tag, and its place: `file:line`, or `file: concept`."""

    place: str
    tag: Tag


@dataclass(frozen=True, slots=True)
class Deprecated:
    """An id that the vocabulary itself retires."""

    place: str
    id: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """An invalid concept: its place, and what would be right."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


Read = Entry | Deprecated | Wrong


@dataclass(frozen=True, slots=True)
class Choice:
    """The options for reading a vocabulary.

    `language`: BCP 47 tag of the labels that become names; None takes those without a language, or the only one.
    `alias_languages`: languages whose alternative labels become aliases too. `notations`: whether notations do.
    `scheme`, `collection`: IRIs; only their concepts are read.
    """

    language: str | None = None
    alias_languages: tuple[str, ...] = ()
    scheme: str | None = None
    collection: str | None = None
    notations: bool = False


@dataclass(slots=True)
class _Remark:
    place: str
    count: int = 0


@dataclass(slots=True)
class Remarks:
    """Collects what was left out or changed while reading a file: the first place and count of each kind."""

    _found: dict[str, _Remark] = field(default_factory=dict)

    def add(self, text: str, place: str, count: int = 1) -> None:
        """Add a remark at a place. A file may cause any number of kinds: beyond KINDS they are dropped."""
        if text in self._found or len(self._found) < KINDS:
            self._found.setdefault(text, _Remark(place)).count += count

    def lines(self) -> Iterator[str]:
        """One line for each kind."""
        for text, remark in self._found.items():
            more = f" (and {remark.count - 1} more)" if remark.count > 1 else ""
            yield f"{remark.place}: {text}{more}"


def made(place: str, fields: Mapping[str, object]) -> Entry | Wrong:
    """The tag of these fields, or the fault in them."""
    try:
        return Entry(place, Tag.model_validate(fields))
    except ValidationError as error:
        return Wrong(place, str(poison(error, Tag)))


def choose_language(name: str, counts: Mapping[str, int], choice: Choice) -> str:
    """The language of the names, `""` for labels without one. `counts`: labels by language, 0 if not counted.

    Raises UserError if it is not chosen and there are several, or if no label is in it.
    """
    listed = ", ".join(_counted(language, count) for language, count in list(counts.items())[:SHOWN])
    if choice.language is not None:
        if counts and not any(matches(choice.language, language) for language in counts):
            raise UserError(f"{name} has no label in language {shorten(choice.language)}; its languages are {listed}")
        return choice.language
    if len(counts) <= 1:
        return next(iter(counts), "")
    if counts.get("") == max(counts.values()):
        return ""
    raise UserError(f"{name} has labels in several languages, {listed}: --language says which is the name")


def matches(wanted: str, language: str) -> bool:
    """Whether a label's language is the wanted one, or one of its regions (RFC 4647, basic filtering)."""
    wanted, language = wanted.casefold(), language.casefold()
    return language == wanted or (wanted != "" and language.startswith(f"{wanted}-"))


def _counted(language: str, count: int) -> str:
    shown = shorten(language) if language else "none"
    return f"{shown} ({count})" if count else shown
