"""Knowledge for a content: at most n segments, valid now, visible to it, and similar to it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tagbus.stream.config import KnowledgeSettings
from tagbus.stream.contract.events import Knowledge
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.errors import DependencyDown
from tagbus.stream.index.apply import Projection
from tagbus.stream.memory import Memory, Point
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.kinds import KNOWLEDGE
from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.knowledge import KnowledgeRetrieval
from tests.index.parts import Failing, encoder, memory, record, tombstone

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
OPEN = RecallDefaults.model_validate({**encoder().release.recall.model_dump(by_alias=True), "c2t_threshold": -1})


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


def retrieval(over: Memory, clock: Clock | None = None, **chosen: object) -> KnowledgeRetrieval:
    settings = KnowledgeSettings.model_validate(chosen)
    return KnowledgeRetrieval(over.stores[KNOWLEDGE.name], settings, OPEN, clock or Clock())


async def filled(*segments: Knowledge) -> Memory:
    built = memory()
    await Projection(encoder(), built).apply([record(one) for one in segments])
    return built


async def found(over: KnowledgeRetrieval, text: str, *scopes: str) -> list[str]:
    [segments] = await over.retrieve(await encoder().encode([text]), [frozenset(scopes)])
    return [one.id for one in segments]


def segment(name: str, text: str = "Bees live in hives on city roofs.", **fields: object) -> Knowledge:
    return Knowledge.model_validate({"id": name, "kind": "rule", "title": name, "text": text, **fields})


async def test_the_most_similar_come_first_with_what_memory_keeps() -> None:
    over = retrieval(
        await filled(segment("law", "The law of the sea."), segment("hives"), segment("cars", "Electric cars.")),
        segments=2,
    )
    [segments] = await over.retrieve(await encoder().encode(["Hives of bees on the roofs of a city"]))
    assert segments[0].id == "hives"
    assert len(segments) == 2
    best = segments[0]
    assert (best.kind, best.title, best.text) == ("rule", "hives", "Bees live in hives on city roofs.")
    assert 0.5 < best.similarity <= 1
    assert best.similarity > segments[1].similarity


async def test_a_segment_counts_from_its_first_moment_until_before_its_last() -> None:
    clock = Clock()
    over = retrieval(await filled(segment("news", valid_from=NOW, valid_until=NOW + timedelta(hours=1))), clock)
    seen = {}
    for offset in (-TICK, timedelta(0), timedelta(hours=1) - TICK, timedelta(hours=1)):
        clock.at = NOW + offset
        seen[offset] = await found(over, "bees")
    assert list(seen.values()) == [[], ["news"], ["news"], []]


async def test_expired_segments_take_no_valid_ones_place() -> None:
    """Given 50 expired segments with the content's own text, the n of a content are valid ones."""
    expired = [segment(f"old{n}", valid_until=NOW) for n in range(50)]
    coming = [segment(f"coming{n}", valid_from=NOW + TICK) for n in range(50)]
    valid = [segment(f"new{n}", f"Hives, number {n}.") for n in range(4)]
    over = retrieval(await filled(*expired, *coming, *valid), segments=3)
    names = await found(over, "Bees live in hives on city roofs.")
    assert len(names) == 3
    assert all(name.startswith("new") for name in names)


async def test_a_content_sees_what_shares_a_scope_or_has_none() -> None:
    over = retrieval(
        await filled(segment("all"), segment("ann", scopes=("ann",)), segment("bob", scopes=("bob",))), segments=5
    )
    assert await found(over, "bees", "ann") == ["all", "ann"]
    assert await found(over, "bees", "bob", "carl") == ["all", "bob"]
    assert await found(over, "bees") == ["all"]


async def test_a_segment_less_similar_than_the_threshold_is_left_out() -> None:
    built = await filled(segment("hives"))
    assert await found(retrieval(built, threshold=0.5), "Bees live in hives") == ["hives"]
    assert await found(retrieval(built, threshold=0.5), "Quarterly results of a bank") == []


async def test_the_threshold_is_the_releases_of_content_and_tag_unless_one_is_set() -> None:
    built = await filled(segment("hives"))
    release = encoder().release.recall
    strict = KnowledgeRetrieval(built.stores["knowledge"], KnowledgeSettings(), release, Clock())
    assert release.c2t_threshold > 0.2
    assert await found(strict, "Quarterly results of a bank") == []


async def test_a_withdrawn_segment_is_found_no_more() -> None:
    built = await filled(segment("hives"))
    await Projection(encoder(), built).apply([tombstone("knowledge", "hives")])
    assert await found(retrieval(built), "bees") == []


class Changing(ExactStore):
    """A store in which the segment that a search found is replaced before its text is read."""

    payloads: dict[str, Payload]

    async def fetch(self, keys: object) -> dict[str, Payload]:
        return self.payloads


@pytest.mark.parametrize(
    "payloads", [{}, {"hives": {"kind": "rule", "text": "old", "valid_until": "2020-01-01T00:00:00Z"}}]
)
async def test_one_that_expires_or_is_deleted_between_search_and_read_is_left_out(payloads: dict[str, Payload]) -> None:
    store = Changing("r", encoder().release.dimension)
    built = await filled(segment("hives"))
    vectors = await encoder().encode(["bees"])
    await store.upsert([Point("hives", vectors[0], {})])
    store.payloads = payloads
    assert await KnowledgeRetrieval(store, KnowledgeSettings(), OPEN, Clock()).retrieve(vectors) == [[]]
    assert await found(retrieval(built), "bees") == ["hives"]


async def test_a_store_that_does_not_answer_is_a_dependency_that_is_down() -> None:
    store = Failing("r", encoder().release.dimension)
    store.failures = 1
    with pytest.raises(DependencyDown):
        await KnowledgeRetrieval(store, KnowledgeSettings(), OPEN).retrieve(np.eye(1, 384, dtype=np.float32))
