"""Literal recall: tags whose name or alias stands in the content.

Both are compared as runs of lemmas, so that `libraries` stands in "a library". simplemma looks lemmas up in a
dictionary; words of a language that it was not told of stand for themselves, so they still match when they are equal.
"""

import asyncio
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, cast

from pydantic import Field
from simplemma import lemmatize

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.store import Payload, Store
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import ComponentOf, ComponentSettings, Part, Surroundings, variable
from tagbus.stream.recall.scripts import DENSE

NAME: Final = "literal"

# What is read of a text: 10,000 words take 0.1 s where all of YSO's names stand in them. A character may become 18 when
# it is brought to its normal form.
TEXT_CHARS: Final = 100_000
TEXT_WORDS: Final = 10_000
# Longer names are left out: the longest of 24,813 tags of YSO has 19 words.
NAME_WORDS: Final = 32
NAME_CHARS: Final = 512
# A longer run of letters is cut: nobody wrote it as a word.
WORD_CHARS: Final = 64
# Tags that one text gets at most, those with most words.
MATCHES: Final = 100
# Tags that are read at once.
CHUNK: Final = 1_000
LEMMAS: Final = 100_000
# What a word weighs that stands there in another form: of 24,813 tags of YSO in 5,083 titles 10.7% of those that stand
# there as they are written were right, and 4.7% of the others.
INFLECTED: Final = 0.75

# C++ and C# keep their signs, or they would stand in every "vitamin C".
_WORD: Final = re.compile(rf"[{DENSE}]|[^\W{DENSE}]+[+#]*")
# "light (physics)": the qualifier tells tags apart and stands in no text. One that is not closed goes to the end.
_QUALIFIER: Final = re.compile(r"\([^)]*\)?")

Lemmas = tuple[str, ...]
Words = tuple[str, ...]
# A name: its words as they are written, and the name whole.
_Entry = tuple[Words, str]


class Matches(dict[str, float]):
    """Tag ids with the words that matched, most first; `names` says which name or alias it was."""

    def __init__(self, found: Sequence[tuple[str, float, str]]) -> None:
        super().__init__((tag_id, score) for tag_id, score, _ in found)
        self.names: Mapping[str, str] = {tag_id: name for tag_id, _, name in found}


class Lexicon:
    """The names of all tags by their lemmas: a name is added or taken away without a look at the others.

    One thread may change it while others match, and nobody waits: what a match walks through is replaced, never
    changed. A tag whose names change is found by the old ones, the new ones or both for that moment.

    A title against 24,813 tags takes 63 µs, 11 of them for its lemmas. An automaton of pyahocorasick takes 43, and
    0.34 s for each change, after which it must be made anew.
    """

    def __init__(self, languages: Sequence[str] = ("en",)) -> None:
        """`languages`: ISO 639-1; the first whose dictionary has a word says its lemma.

        Raises UserError for one that simplemma has not.
        """
        self._names: dict[str, tuple[str, ...]] = {}
        # Under the lemmas of a name: its entry by tag.
        self._entries: dict[Lemmas, Mapping[str, _Entry]] = {}
        # Under the first lemma of names: how many there are of each length.
        self._lengths: dict[str, Mapping[int, int]] = {}
        self._lemma = _lemmatizer(tuple(languages))

    def __len__(self) -> int:
        return len(self._names)

    def tags(self) -> set[str]:
        """The tags whose names are here."""
        return set(self._names)

    def put(self, tag_id: str, names: tuple[str, ...]) -> None:
        """The names of a tag, in place of those that it had."""
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
        """Forget a tag."""
        for lemmas in self._entries_of(self._names.pop(tag_id, ())):
            self._remove(lemmas, tag_id)

    def match(self, text: str) -> Matches:
        """Every tag whose name stands in the text, longer and shorter ones, at most 100."""
        words = _words(text, TEXT_WORDS)
        lemmas = tuple(map(self._lemma, words))
        found: dict[str, tuple[float, str]] = {}
        for start, first in enumerate(lemmas):
            for length in self._lengths.get(first, ()):
                entry = self._entries.get(lemmas[start : start + length])
                if entry is not None:
                    _note(found, islice(entry.items(), MATCHES), words[start : start + length])
        ranked = sorted(((tag_id, *each) for tag_id, each in found.items()), key=lambda one: (-one[1], one[0]))
        return Matches(ranked[:MATCHES])

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
        """There is one name more or less of this first lemma and this length."""
        lengths = dict(self._lengths.get(lemmas[0], {}))
        lengths[len(lemmas)] = lengths.get(len(lemmas), 0) + more
        if left := {length: count for length, count in lengths.items() if count}:
            self._lengths[lemmas[0]] = left
        else:
            del self._lengths[lemmas[0]]

    def _entries_of(self, names: tuple[str, ...]) -> dict[Lemmas, _Entry]:
        """Of names with the same lemmas the first counts."""
        entries: dict[Lemmas, _Entry] = {}
        for name in names:
            words = _words(_unqualified(name), NAME_WORDS + 1)
            if 0 < len(words) <= NAME_WORDS and len(name) <= NAME_CHARS:
                entries.setdefault(tuple(map(self._lemma, words)), (words, name))
        return entries


class LiteralRecall:
    """Tags by their names, over a memory that changes while it is asked.

    What memory holds already is read once. From then on `change` takes over what is put and deleted, and nobody who
    tags waits for it.
    """

    name = NAME

    def __init__(self, tags: Store, languages: Sequence[str] = ("en",)) -> None:
        """Raises UserError for a language that simplemma has not."""
        self._tags = tags
        self._lexicon = Lexicon(languages)
        # Changes are made one after the other, so that the last one counts.
        self._changing = Serial("literal")
        self._reading = asyncio.Lock()
        # What changed before all was read, None afterwards: what was read meanwhile may be older.
        self._changed: set[str] | None = set()

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """The words that matched of each tag that stands in a text, most first. Raises DependencyDown."""
        if self._changed is not None:
            async with self._reading:
                await self._read()
        # In a thread, for a long text must not hold up the loop.
        return await asyncio.to_thread(lambda: [self._lexicon.match(text) for text in query.texts])

    async def change(self, tags: Mapping[str, Payload | None]) -> None:
        """Take over what memory holds of these tags now; None: it holds them no longer."""
        await self._changing.run(self._change, tags)

    async def close(self) -> None:
        """Let go of the thread. No call may be in flight."""
        self._changing.close()

    async def _read(self) -> None:
        """Take over what stood in memory before anybody told of changes."""
        if self._changed is None:
            return
        wanted = await self._changing.run(self._unread, await self._tags.keys())
        for start in range(0, len(wanted), CHUNK):
            await self._changing.run(self._take, await self._tags.fetch(wanted[start : start + CHUNK]))
        self._changed = None

    def _unread(self, keys: set[str]) -> list[str]:
        return sorted(keys - (self._changed or set()))

    def _take(self, payloads: Mapping[str, Payload]) -> None:
        for tag_id, payload in payloads.items():
            if self._changed is not None and tag_id not in self._changed:
                self._lexicon.put(tag_id, _names(payload))

    def _change(self, tags: Mapping[str, Payload | None]) -> None:
        if self._changed is not None:
            self._changed.update(tags)
        for tag_id, payload in tags.items():
            if payload is None:
                self._lexicon.drop(tag_id)
            else:
                self._lexicon.put(tag_id, _names(payload))


def _note(found: dict[str, tuple[float, str]], entries: Iterable[tuple[str, _Entry]], words: Sequence[str]) -> None:
    """Add the tags that are named so, where they were not found with more words."""
    for tag_id, (written, name) in entries:
        if tag_id in found and found[tag_id][0] >= len(words):
            continue
        score = sum(1.0 if _same(*pair) else INFLECTED for pair in zip(words, written, strict=True))
        if tag_id not in found or found[tag_id][0] < score:
            found[tag_id] = (score, name)


def _same(word: str, written: str) -> bool:
    # The illness AIDS is no aids.
    return word == written or (word.casefold() == written.casefold() and not written.isupper())


def _names(payload: Payload) -> tuple[str, ...]:
    return (cast(str, payload["name"]), *cast(Sequence[str], payload.get("aliases", ())))


def _unqualified(name: str) -> str:
    return _QUALIFIER.sub(" ", name[: NAME_CHARS + 1]).strip() or name


def _words(text: str, limit: int) -> Words:
    """The first words of a text, at most `limit`."""
    normal = unicodedata.normalize("NFKC", text[:TEXT_CHARS])
    return tuple(match[0][:WORD_CHARS] for match in islice(_WORD.finditer(normal), limit))


def _lemmatizer(languages: tuple[str, ...]) -> Callable[[str], str]:
    for language in languages:
        try:
            lemmatize("word", lang=language)
        except ValueError:
            raise UserError(
                f"{variable(NAME, 'languages')}: {shorten(language)} is wrong, expected codes such as en or de,en"
            ) from None

    @lru_cache(LEMMAS)
    def lemma(word: str) -> str:
        # As it is written: in German only Haus is a house. No dictionary has words of capitals.
        return lemmatize(word.casefold() if word.isupper() else word, lang=languages).casefold()

    return lemma


class LiteralSettings(ComponentSettings):
    """Literal names."""

    enabled: bool = Field(False, description="whether tags whose name or alias stands in the content are found")
    languages: str = Field(
        "en",
        pattern=r"^[a-z]{2,3}(,[a-z]{2,3})*$",
        description="of the names, ISO 639 with commas; the first that knows a word says its lemma",
    )


async def _open_component(section: LiteralSettings, into: Surroundings) -> Part:
    recall = LiteralRecall(into.memory.tags, section.languages.split(","))
    return Part(recallers=(recall,), listeners=(recall.change,), close=recall.close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=LiteralSettings,
    # The number changes with what is matched and how it is scored.
    version=lambda section: f"{NAME}-1-{section.languages}" if section.enabled else None,
    open=_open_component,
    lists=(NAME,),
)
