"""Component `bm25`: hybrid recall. Finds tags by the words that they and exemplars share with a content, beside
vectors.

As in graph recall a content reaches tags in two ways, here by BM25: tags whose names, aliases and description contain
its words, and the tags of exemplars that contain them. A tag's score is its share of a softmax over the best of both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, cast

import numpy as np
from pydantic import Field

from tagbus.stream.encoder.release import content_text
from tagbus.stream.memory.hits import Flags, Hits, Slice
from tagbus.stream.memory.kinds import EXEMPLARS, TAGS
from tagbus.stream.memory.scopes import audience
from tagbus.stream.memory.serial import Serial
from tagbus.stream.memory.store import Memory, Payload
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import ComponentOf, ComponentSettings, Part, Surroundings
from tagbus.stream.recall.lexical.in_step import Changes, InStep
from tagbus.stream.recall.lexical.index import Text, TextIndex
from tagbus.stream.recall.lexical.lemmas import Languages, lemmatizer
from tagbus.stream.recall.neighbours import elected, texts
from tagbus.stream.recall.pool import Ballots
from tagbus.stream.recall.taxonomy.standing import Standing
from tagbus.stream.recall.votes import capped
from tagbus.stream.recall.words import words_of

NAME: Final = "bm25"

# The best tags and exemplars that share the softmax, its temperature, and the exemplars' share (RAE-XMC's lambda). Of
# 60,000 titles of YSO's training set and 600 others, recall@10 is 32.0; at temperature 0.1 29.6, at 0.3 32.8, with half
# for the exemplars 30.3.
TAG_KEYS: Final = 20
CONTENT_KEYS: Final = 50
TAU: Final = 0.2
SHARE: Final = 0.3
# Limit of tags per content.
LISTED: Final = 30


class Bm25Recall:
    """Finds tags by words, over a memory that changes concurrently.

    Memory is read once. After that `change_tags` and `change_exemplars` apply puts and deletes, in order of arrival and
    before the next search.
    """

    name = NAME

    def __init__(self, memory: Memory, languages: tuple[str, ...] = ("en",)) -> None:
        """Raises UserError for a language that simplemma does not support."""
        lemma = lemmatizer(NAME, languages)

        def terms(text: str) -> Iterator[str]:
            return map(lemma, words_of(text))

        self._numbers = memory.tags.numbers
        self._standing = Standing(memory.tags)
        self._tags = TextIndex(terms, self._numbers)
        self._contents = TextIndex(terms, self._numbers)
        # Searches and changes run one at a time: arrays change in place.
        self._serial = Serial(NAME)
        self._in_step = {
            TAGS.name: InStep(memory.tags, self._serial, self._put_tags),
            EXEMPLARS.name: InStep(memory.exemplars, self._serial, self._put_exemplars),
        }

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """The share of each tag that contains words of a content, or whose exemplars do, 0 to 1, best first.

        A content's own exemplars never vote for it, and machine decisions are weighted by `capped`. Raises
        DependencyDown.
        """
        for one in self._in_step.values():
            await one.read()
        direct, near, machine = await self._serial.search(self._search, query)
        near = await self._standing.redirect(near, query.scopes)
        return await self._serial.run(self._listed, direct, near, machine)

    async def change_tags(self, changes: Changes) -> None:
        """Apply memory's current payloads of these tags; None: removed."""
        await self._standing.change(changes)
        await self._in_step[TAGS.name].change(changes)

    async def change_exemplars(self, changes: Changes) -> None:
        """Apply memory's current payloads of these exemplars; None: removed."""
        await self._in_step[EXEMPLARS.name].change(changes)

    async def close(self) -> None:
        """Stop the thread. No call may be in flight."""
        self._serial.close()

    def _search(self, query: Query) -> tuple[Hits, Hits, Flags]:
        """Tags, exemplars that may vote, and which of those have only machine decisions."""
        direct = self._tags.search(query.texts, TAG_KEYS, query.scopes)
        # Two more than needed: a content's own exemplars, by people and by machine, are dropped afterwards.
        similar = self._contents.search(query.texts, CONTENT_KEYS + 2, query.scopes)
        return direct, *elected(query.ids, similar, CONTENT_KEYS)

    def _listed(self, direct: Hits, near: Hits, machine: Flags) -> list[Mapping[str, float]]:
        return [
            self._shares(direct[row], near[row], machine[near.starts[row] : near.starts[row + 1]])
            for row in range(len(direct))
        ]

    def _shares(self, direct: Slice, near: Slice, machine: Flags) -> dict[str, float]:
        """The share of each tag of one content, best first."""
        scores = np.concatenate((direct.scores, near.scores)).astype(np.float64)
        if not len(scores):
            return {}
        weights = np.exp((scores - scores.max()) / TAU)
        by_tag, by_exemplar = weights[: len(direct)], weights[len(direct) :]
        voters = np.repeat(np.arange(len(near)), near.lengths)
        ballots = Ballots(np.zeros(len(near), np.int64), near.scores, machine, voters, near.tags)
        by_exemplar = capped(by_exemplar, ballots, 1)
        total = by_tag.sum() + by_exemplar.sum()
        votes = np.repeat(SHARE * by_exemplar / total, near.lengths)
        tags, places = np.unique(np.concatenate((direct.tags, near.tags)), return_inverse=True)
        shares = np.bincount(places, np.concatenate(((1 - SHARE) * by_tag / total, votes)), len(tags))
        best = np.lexsort((tags, -shares))[:LISTED]
        return {self._numbers.ids[tag]: share for tag, share in zip(tags[best], shares[best].tolist(), strict=True)}

    def _put_tags(self, changes: Changes) -> None:
        _apply(self._tags, changes, _tag_text, lambda tag_id, _: [tag_id])

    def _put_exemplars(self, changes: Changes) -> None:
        _apply(self._contents, changes, _exemplar_text, lambda _, payload: texts(payload, "accepted"))


def _apply(
    index: TextIndex,
    changes: Changes,
    text: Callable[[Payload], str],
    tags: Callable[[str, Payload], Sequence[str]],
) -> None:
    audiences = {key: None if payload is None else audience(payload) for key, payload in changes.items()}
    index.drop(key for key, seen_by in audiences.items() if seen_by is None)
    index.put(
        [
            Text(key, text(payload), seen_by, index.numbers.of(tags(key, payload)))
            for (key, payload), seen_by in zip(changes.items(), audiences.values(), strict=True)
            if payload is not None and seen_by is not None
        ]
    )


def _tag_text(payload: Payload) -> str:
    names = cast(Mapping[str, str], payload.get("names", {})).values()
    return "\n".join((cast(str, payload["name"]), *names, *texts(payload, "aliases"), str(payload["description"])))


def _exemplar_text(payload: Payload) -> str:
    return content_text(str(payload["title"]), str(payload["text"]))


class Bm25Settings(ComponentSettings):
    """Hybrid recall."""

    enabled: bool = Field(False, description="whether tags are also found by the words of contents, exemplars and tags")
    languages: Languages = "en"


async def _open_component(section: Bm25Settings, into: Surroundings) -> Part:
    recall = Bm25Recall(into.memory, tuple(section.languages.split(",")))
    listeners = {TAGS.name: recall.change_tags, EXEMPLARS.name: recall.change_exemplars}
    return Part(recallers=(recall,), listeners=listeners, close=recall.close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=Bm25Settings,
    # Bump the number when matching or scoring changes.
    version=lambda section: f"{NAME}-1-{section.languages}" if section.enabled else None,
    open=_open_component,
    lists=(NAME,),
)
