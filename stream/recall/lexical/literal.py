"""Literal recall: tags whose name or alias occurs in the content.

Names and text are compared as sequences of lemmas, so `libraries` matches "a library". simplemma looks lemmas up in
dictionaries; words of languages that are not configured are their own lemmas, so they match if they are equal.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, cast

from pydantic import Field

from tagbus.stream.memory.kinds import TAGS
from tagbus.stream.memory.scopes import audience
from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.store import Payload, Store
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import ComponentOf, ComponentSettings, Part, Surroundings
from tagbus.stream.recall.lexical.in_step import Changes, InStep
from tagbus.stream.recall.lexical.lemmas import Languages, lemmatizer
from tagbus.stream.recall.scripts import DENSE, normal

NAME: Final = "literal"

# Characters read of a text: 10,000 words take 0.1 s if they contain all of YSO's names. Normalization may expand a
# character to 18.
TEXT_CHARS: Final = 100_000
TEXT_WORDS: Final = 10_000
# Longer names are skipped: the longest of 24,813 tags of YSO has 19 words.
NAME_WORDS: Final = 32
NAME_CHARS: Final = 512
# Longer runs of letters are cut: they are not words.
WORD_CHARS: Final = 64
# Limit of tags per text; those with most words win.
MATCHES: Final = 100
# Weight of an inflected match: of 24,813 tags of YSO in 5,083 titles, 10.7% of the exact matches were right, and 4.7%
# of the others.
INFLECTED: Final = 0.75

# C++ and C# keep their signs, or they would match every "vitamin C".
_WORD: Final = re.compile(rf"[{DENSE}]|[^\W{DENSE}]+[+#]*")
# "light (physics)": the qualifier disambiguates and does not occur in text. Unclosed, it extends to the end.
_QUALIFIER: Final = re.compile(r"\([^)]*\)?")

Lemmas = tuple[str, ...]
Words = tuple[str, ...]
# A name: its words as written, and the whole name.
_Entry = tuple[Words, str]


class Matches(dict[str, float]):
    """Tag ids with the number of matched words, most first; `names` holds the name or alias that matched."""

    def __init__(self, found: Sequence[tuple[str, float, str]]) -> None:
        super().__init__((tag_id, score) for tag_id, score, _ in found)
        self.names: Mapping[str, str] = {tag_id: name for tag_id, _, name in found}


class Lexicon:
    """The names of all tags by their lemmas, updated incrementally.

    One thread may change it while others match without locks: structures that a match reads are replaced, never
    mutated. During a change a tag is found by its old names, its new ones or both.

    Matching a title against 24,813 tags takes 63 µs, 11 of them for its lemmas. An automaton of pyahocorasick takes 43,
    plus 0.34 s after each change to rebuild it.
    """

    def __init__(self, languages: Sequence[str] = ("en",)) -> None:
        """`languages`: ISO 639-1 codes; the first dictionary that has a word gives its lemma.

        Raises UserError for a language that simplemma does not support.
        """
        self._names: dict[str, tuple[str, ...]] = {}
        # Only tags with scopes.
        self._scopes: dict[str, frozenset[str]] = {}
        # Lemmas of a name -> tag -> entry.
        self._entries: dict[Lemmas, Mapping[str, _Entry]] = {}
        # First lemma -> name length -> number of names.
        self._lengths: dict[str, Mapping[int, int]] = {}
        self._lemma = lemmatizer(NAME, languages)

    def __len__(self) -> int:
        return len(self._names)

    def tags(self) -> set[str]:
        """The indexed tags."""
        return set(self._names)

    def put(self, tag_id: str, names: tuple[str, ...], scopes: frozenset[str] = frozenset()) -> None:
        """Replace the names and the scopes of a tag."""
        if scopes:
            self._scopes[tag_id] = scopes
        else:
            self._scopes.pop(tag_id, None)
        before = self._names.get(tag_id, ())
        if before == names:
            return
        entries = self._entries_of(names)
        self._names[tag_id] = names
        for lemmas, entry in entries.items():
            self._add(lemmas, tag_id, entry)
        for lemmas in self._entries_of(before).keys() - entries.keys():
            self._remove(lemmas, tag_id)

    def drop(self, tag_id: str) -> None:
        """Remove a tag."""
        for lemmas in self._entries_of(self._names.pop(tag_id, ())):
            self._remove(lemmas, tag_id)
        self._scopes.pop(tag_id, None)

    def match(self, text: str, scopes: frozenset[str] | None = None) -> Matches:
        """Every tag whose name occurs in the text, overlapping ones included, at most 100. `scopes`: the content's;
        None: all tags are visible."""
        words = _words(text, TEXT_WORDS)
        lemmas = tuple(map(self._lemma, words))
        found: dict[str, tuple[float, str]] = {}
        for start, first in enumerate(lemmas):
            for length in self._lengths.get(first, ()):
                entry = self._entries.get(lemmas[start : start + length])
                if entry is not None:
                    _note(found, islice(self._visible(entry, scopes), MATCHES), words[start : start + length])
        ranked = sorted(((tag_id, *each) for tag_id, each in found.items()), key=lambda one: (-one[1], one[0]))
        return Matches(ranked[:MATCHES])

    def _visible(self, entry: Mapping[str, _Entry], scopes: frozenset[str] | None) -> Iterable[tuple[str, _Entry]]:
        if scopes is None or not self._scopes:
            return entry.items()
        return (one for one in entry.items() if not (own := self._scopes.get(one[0])) or not own.isdisjoint(scopes))

    def _add(self, lemmas: Lemmas, tag_id: str, entry: _Entry) -> None:
        if lemmas not in self._entries:
            self._count(lemmas, 1)
        self._entries[lemmas] = {**self._entries.get(lemmas, {}), tag_id: entry}

    def _remove(self, lemmas: Lemmas, tag_id: str) -> None:
        left = {each: entry for each, entry in self._entries[lemmas].items() if each != tag_id}
        if left:
            self._entries[lemmas] = left
        else:
            del self._entries[lemmas]
            self._count(lemmas, -1)

    def _count(self, lemmas: Lemmas, more: int) -> None:
        """Add `more` (1 or -1) to the count of names with this first lemma and length."""
        lengths = dict(self._lengths.get(lemmas[0], {}))
        lengths[len(lemmas)] = lengths.get(len(lemmas), 0) + more
        if left := {length: count for length, count in lengths.items() if count}:
            self._lengths[lemmas[0]] = left
        else:
            del self._lengths[lemmas[0]]

    def _entries_of(self, names: tuple[str, ...]) -> dict[Lemmas, _Entry]:
        """Of names with equal lemmas the first wins."""
        entries: dict[Lemmas, _Entry] = {}
        for name in names:
            words = _words(_unqualified(name), NAME_WORDS + 1)
            if 0 < len(words) <= NAME_WORDS and len(name) <= NAME_CHARS:
                entries.setdefault(tuple(map(self._lemma, words)), (words, name))
        return entries


class LiteralRecall:
    """Tags by their names, over a memory that changes concurrently.

    The memory is read once. After that `change` applies what is put and deleted, without blocking calls to `recall`.
    """

    name = NAME

    def __init__(self, tags: Store, languages: Sequence[str] = ("en",)) -> None:
        """Raises UserError for a language that simplemma does not support."""
        self._lexicon = Lexicon(languages)
        # Changes run one at a time, so that the last one wins.
        self._changing = Serial("literal")
        self._in_step = InStep(tags, self._changing, self._put)

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """The number of matched words of each tag that occurs in a text, most first. Raises DependencyDown."""
        await self._in_step.read()
        # In a thread: a long text must not block the event loop.
        return await asyncio.to_thread(self._match, query.texts, query.scopes or [None] * len(query.texts))

    def _match(self, texts: Sequence[str], scopes: Sequence[frozenset[str] | None]) -> list[Mapping[str, float]]:
        return [self._lexicon.match(text, of) for text, of in zip(texts, scopes, strict=True)]

    async def change(self, tags: Changes) -> None:
        """Apply memory's current payloads of these tags; None: removed."""
        await self._in_step.change(tags)

    async def close(self) -> None:
        """Stop the thread. No call may be in flight."""
        self._changing.close()

    def _put(self, tags: Changes) -> None:
        for tag_id, payload in tags.items():
            seen_by = None if payload is None else audience(payload)
            if payload is None or seen_by is None:
                self._lexicon.drop(tag_id)
            else:
                self._lexicon.put(tag_id, _names(payload), seen_by)


def _note(found: dict[str, tuple[float, str]], entries: Iterable[tuple[str, _Entry]], words: Sequence[str]) -> None:
    """Add the tags with this name, unless they already matched more words."""
    for tag_id, (written, name) in entries:
        if tag_id in found and found[tag_id][0] >= len(words):
            continue
        score = sum(1.0 if _same(*pair) else INFLECTED for pair in zip(words, written, strict=True))
        if tag_id not in found or found[tag_id][0] < score:
            found[tag_id] = (score, name)


def _same(word: str, written: str) -> bool:
    # The illness AIDS does not match "aids".
    return word == written or (word.casefold() == written.casefold() and not written.isupper())


def _names(payload: Payload) -> tuple[str, ...]:
    return (cast(str, payload["name"]), *cast(Sequence[str], payload.get("aliases", ())))


def _unqualified(name: str) -> str:
    return _QUALIFIER.sub(" ", name[: NAME_CHARS + 1]).strip() or name


def _words(text: str, limit: int) -> Words:
    """The first words of a text, at most `limit`."""
    found = islice(_WORD.finditer(normal(text[:TEXT_CHARS])), limit)
    return tuple(match[0][:WORD_CHARS] for match in found)


class LiteralSettings(ComponentSettings):
    """Literal names."""

    enabled: bool = Field(False, description="whether tags whose name or alias stands in the content are found")
    languages: Languages = "en"


async def _open_component(section: LiteralSettings, into: Surroundings) -> Part:
    recall = LiteralRecall(into.memory.tags, section.languages.split(","))
    return Part(recallers=(recall,), listeners={TAGS.name: recall.change}, close=recall.close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=LiteralSettings,
    # Bump the number when what rankers and calibrations have learnt of matches no longer holds.
    version=lambda section: f"{NAME}-1-{section.languages}" if section.enabled else None,
    open=_open_component,
    lists=(NAME,),
)
