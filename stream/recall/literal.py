"""Literal recall: tags whose name or alias stands in the content.

Both are compared as runs of lemmas, so that `libraries` stands in "a library". simplemma looks lemmas up in a
dictionary; words of a language that it was not told of stand for themselves, so they still match when they are equal.
"""

import asyncio
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, cast

from simplemma import lemmatize

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.store import Payload, Store
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.scripts import DENSE

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


class Matches(dict[str, float]):
    """Tag ids with the words that matched, most first; `names` says which name or alias it was."""

    def __init__(self, found: Sequence[tuple[str, float, str]]) -> None:
        super().__init__((tag_id, score) for tag_id, score, _ in found)
        self.names: Mapping[str, str] = {tag_id: name for tag_id, _, name in found}


class Lexicon:
    """The names of all tags by their lemmas: a name is added or taken away without a look at the others.

    A title against 24,813 tags takes 63 µs, 11 of them for its lemmas. An automaton of pyahocorasick takes 43, and
    0.34 s for each change, after which it must be made anew.
    """

    def __init__(self, languages: Sequence[str] = ("en",)) -> None:
        """`languages`: ISO 639-1; the first whose dictionary has a word says its lemma.

        Raises UserError for one that simplemma has not.
        """
        self._names: dict[str, tuple[str, ...]] = {}
        # Under the lemmas of a name: its words as they are written, and the name, by tag.
        self._entries: dict[Lemmas, dict[str, tuple[Words, str]]] = {}
        # Under the first lemma of names: how many there are of each length.
        self._lengths: dict[str, dict[int, int]] = {}
        self._lemma = _lemmatizer(tuple(languages))

    def __len__(self) -> int:
        return len(self._names)

    def tags(self) -> set[str]:
        """The tags whose names are here."""
        return set(self._names)

    def put(self, tag_id: str, names: tuple[str, ...]) -> None:
        """The names of a tag, in place of those that it had."""
        if self._names.get(tag_id) == names:
            return
        self.drop(tag_id)
        self._names[tag_id] = names
        for lemmas, words, name in self._keys(names):
            entry = self._entries.setdefault(lemmas, {})
            if not entry:
                lengths = self._lengths.setdefault(lemmas[0], {})
                lengths[len(lemmas)] = lengths.get(len(lemmas), 0) + 1
            entry.setdefault(tag_id, (words, name))

    def drop(self, tag_id: str) -> None:
        """Forget a tag."""
        for lemmas, _, _ in self._keys(self._names.pop(tag_id, ())):
            entry = self._entries.get(lemmas, {})
            entry.pop(tag_id, None)
            if not entry and self._entries.pop(lemmas, None) is not None:
                lengths = self._lengths[lemmas[0]]
                lengths[len(lemmas)] -= 1
                if not lengths[len(lemmas)]:
                    del lengths[len(lemmas)]
                if not lengths:
                    del self._lengths[lemmas[0]]

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

    def _keys(self, names: tuple[str, ...]) -> Iterator[tuple[Lemmas, Words, str]]:
        for name in names:
            words = _words(_unqualified(name), NAME_WORDS + 1)
            if 0 < len(words) <= NAME_WORDS and len(name) <= NAME_CHARS:
                yield tuple(map(self._lemma, words)), words, name


class LiteralRecall:
    """Tags by their names, over a store of tags that changes while it is asked."""

    name = "literal"

    def __init__(
        self, tags: Store, taxonomy: Callable[[], Mapping[str, int]] = dict, languages: Sequence[str] = ("en",)
    ) -> None:
        """`taxonomy` gives the applied offset of each partition of `tags`: where it has moved, names are read again.

        Raises UserError for a language that simplemma has not.
        """
        self._tags = tags
        self._taxonomy = taxonomy
        self._lexicon = Lexicon(languages)
        self._seen: Mapping[str, int] | None = None
        self._one = asyncio.Lock()

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """The words that matched of each tag that stands in a text, most first. Raises DependencyDown."""
        # In a thread, for a long text must not hold up the loop; one at a time, for the lexicon may change between.
        async with self._one:
            await self._follow()
            return await asyncio.to_thread(lambda: [self._lexicon.match(text) for text in query.texts])

    async def _follow(self) -> None:
        """Take over what has changed in the store. The version is read before the store, so nothing is missed."""
        version = dict(self._taxonomy())
        if version == self._seen:
            return
        keys = await self._tags.keys()
        for retired in self._lexicon.tags() - keys:
            self._lexicon.drop(retired)
        wanted = sorted(keys)
        for start in range(0, len(wanted), CHUNK):
            payloads = await self._tags.fetch(wanted[start : start + CHUNK])
            await asyncio.to_thread(self._take, payloads)
        self._seen = version

    def _take(self, payloads: Mapping[str, Payload]) -> None:
        for tag_id, payload in payloads.items():
            self._lexicon.put(tag_id, _names(payload))


def _note(
    found: dict[str, tuple[float, str]], entries: Iterator[tuple[str, tuple[Words, str]]], words: Sequence[str]
) -> None:
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
                f"recall.languages: {shorten(language)} is wrong, expected codes such as en or de,en"
            ) from None

    @lru_cache(LEMMAS)
    def lemma(word: str) -> str:
        # As it is written: in German only Haus is a house. No dictionary has words of capitals.
        return lemmatize(word.casefold() if word.isupper() else word, lang=languages).casefold()

    return lemma
