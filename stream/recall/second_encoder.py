"""A second encoder over the same exemplars, with separate votes and tags.

An encoder trained on a corpus is good at that corpus's tags; the release's encoder also covers tags that no training
content has. The second encoder encodes each content once and produces two lists: the votes of its own neighbours, and
the tags whose trained vectors are similar to the content (recall/tagvectors.py). A ranker with both encoders'
neighbours is better than with either alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import Field

from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import load_release
from tagbus.stream.errors import UserError
from tagbus.stream.memory.kinds import TAGS as TAG_POINTS
from tagbus.stream.memory.kinds import carrying
from tagbus.stream.memory.store import Store, Vectors
from tagbus.stream.recall import tagvectors
from tagbus.stream.recall.base import Query, Recaller
from tagbus.stream.recall.component import ComponentOf, Part, Replica, ServedSettings, Surroundings, variable
from tagbus.stream.recall.neighbours import Neighbourhood, Reach
from tagbus.stream.recall.pool import Numbers, pool
from tagbus.stream.recall.tagvectors import FILE, TagSearch, TagVectors
from tagbus.stream.recall.taxonomy.standing import Standing
from tagbus.stream.recall.votes import count_votes

NAME: Final = "second_encoder"
VOTES: Final = "second_encoder_votes"
TAGS: Final = "second_encoder_tags"
LISTS: Final = (VOTES, TAGS)
# The number of neighbours that vote, and the limit of tags per list.
NEIGHBOURS: Final = 100
BEST: Final = 60

Found = list[Mapping[str, float]]


class SecondEncoder:
    """An encoder, its stores, and the tag vectors that it was trained against."""

    def __init__(self, encoder: Encoder, tags: Store, exemplars: Store, search: TagSearch) -> None:
        self.encoder = encoder
        self._search = search
        # C2T is off: the release's encoder already covers all tag texts.
        settings = RecallSettings(c2t=False)
        self._neighbourhood = Neighbourhood(tags, exemplars, settings)
        self._numbers = Numbers((), exemplars.numbers)
        self._encoded: dict[Query, asyncio.Task[Vectors]] = {}

    @property
    def standing(self) -> Standing:
        """Resolves which tag a tag counts as; must be notified of every change of a tag."""
        return self._neighbourhood.standing

    def recallers(self) -> list[Recaller]:
        """Its two lists, which share one encoding of a content."""
        return [_Asked(VOTES, self.votes), _Asked(TAGS, self.tags)]

    async def votes(self, query: Query) -> Found:
        """For each content, the tags of its neighbours with their share of the votes, best first."""
        seen = await self._neighbourhood.look(query.ids, await self._encode(query), Reach(0, NEIGHBOURS), query.scopes)
        numbers = self._numbers
        full = pool(numbers, query.texts, seen, {})
        votes = count_votes(full)
        best = np.flatnonzero(votes.rank < BEST)
        rows, tags = np.divmod(votes.keys[best], max(1, full.width))
        best = best[order := np.lexsort((votes.rank[best], rows))]
        found: list[dict[str, float]] = [{} for _ in query.texts]
        shares = votes.shares[0][best].tolist()
        for row, tag, share in zip(rows[order].tolist(), tags[order].tolist(), shares, strict=True):
            found[row][numbers.ids[tag]] = share
        return list(found)

    async def tags(self, query: Query) -> Found:
        """For each content, the tags with the most similar vectors and their probability, best first."""
        vectors = await self._encode(query)
        return await asyncio.to_thread(self._search.best, vectors, BEST)

    async def _encode(self, query: Query) -> Vectors:
        """Both lists are requested concurrently: the second caller awaits the first one's encoding."""
        task = self._encoded.get(query)
        if task is None:
            task = self._encoded[query] = asyncio.create_task(self.encoder.encode(query.texts))
            task.add_done_callback(lambda _: self._encoded.pop(query, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Close the encoder; its stores close with the memory."""
        await asyncio.gather(*self._encoded.values(), return_exceptions=True)
        await self.encoder.close()


@dataclass(frozen=True, slots=True)
class _Asked:
    """One of its two lists, as a recaller."""

    name: str
    ask: Callable[[Query], Awaitable[Found]]

    async def recall(self, query: Query) -> Found:
        return await self.ask(query)


class SecondEncoderSettings(ServedSettings):
    """`folder` holds model.onnx, tokenizer.json, release.json, golden.json and tags.npz, as `tagbus export` writes them
    for an encoder trained with --recipe top-layers."""

    model: str = Field(NAME, min_length=1, description="Triton's name of the model")


def _version(section: SecondEncoderSettings) -> str | None:
    """The names of its release and of its tag vectors. Raises UserError if the folder does not hold both."""
    folder = section.folder
    return None if folder is None else f"{load_release(folder).name}+{tagvectors.read(folder)[1]}"


async def _open_component(section: SecondEncoderSettings, into: Surroundings) -> Part:
    folder = section.folder
    if folder is None:
        raise ValueError("a second encoder without a folder is off")
    release = await asyncio.to_thread(load_release, folder)
    if release.name == into.release.name:
        raise UserError(f"{variable(NAME, 'folder')}={folder}: it is the release itself, expected another encoder's")
    content, _ = await asyncio.to_thread(tagvectors.read, folder)
    vectors = await asyncio.to_thread(TagVectors.parse, folder / FILE, content)
    if (length := vectors.vectors.shape[1]) != release.dimension:
        raise UserError(f"{folder / FILE}: vectors of {length} numbers, but {release.name} gives others")
    search = await asyncio.to_thread(TagSearch, vectors)
    encoder = await open_encoder(section.at(into.settings.encoder), folder, section.origin(NAME))
    try:
        memory = await into.open_memory(release, carrying())
    except BaseException:
        await encoder.close()
        raise
    second = SecondEncoder(encoder, memory.tags, memory.exemplars, search)

    async def close() -> None:
        await second.close()
        await memory.close()

    return Part(
        recallers=tuple(second.recallers()),
        listeners={TAG_POINTS.name: second.standing.change},
        replicas=(Replica(encoder, memory),),
        close=close,
    )


COMPONENT: Final = ComponentOf(
    name=NAME, settings=SecondEncoderSettings, version=_version, open=_open_component, lists=LISTS
)
