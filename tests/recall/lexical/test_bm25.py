"""Component `bm25`: tags by the words of contents, exemplars and tags, in sync with memory."""

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.components import switched
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.index.apply import Projection
from tagbus.stream.memory import Memory, exact_memory
from tagbus.stream.memory.store import Payload, Scopes
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.lexical.bm25 import LISTED, Bm25Recall
from tests.index.parts import Failing, encoder, memory, record, tombstone

BEES = Tag(id="bees", name="beekeeping", aliases=("apiculture",), names={"fi": "mehiläishoito"})
LAW = Tag(id="law", name="law of the sea")
HIVES = Exemplar(id="c1", title="Hives on the roofs of Helsinki", accepted=("bees",))


async def told(*events: Tag | Exemplar) -> tuple[Projection, Bm25Recall, Memory]:
    """A memory of these, and its recaller, which is notified of them."""
    built = memory()
    recall = Bm25Recall(built)
    listeners = {"tags": [recall.change_tags], "exemplars": [recall.change_exemplars]}
    projection = Projection(encoder(), built, listeners=listeners)
    await projection.apply([record(one) for one in events])
    return projection, recall, built


async def found(recall: Bm25Recall, text: str, name: str = "new", scopes: Scopes = None) -> Mapping[str, float]:
    [listing] = await recall.recall(Query([name], [text], np.zeros((1, 384), np.float32), scopes))
    return listing


async def test_tags_are_found_by_their_words_and_by_those_of_exemplars() -> None:
    _, recall, _ = await told(BEES, LAW, HIVES)
    assert list(await found(recall, "a hive, some roofs")) == ["bees"]
    assert list(await found(recall, "two seas")) == ["law"]
    assert list(await found(recall, "apiculture")) == ["bees"]
    assert list(await found(recall, "Mehiläishoito")) == ["bees"]
    assert await found(recall, "quarterly results") == {}


async def test_shares_fall_and_sum_to_one_where_each_exemplar_has_one_tag() -> None:
    _, recall, _ = await told(BEES, LAW, HIVES)
    shares = await found(recall, "law of the hives, beekeeping by the sea")
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) <= 1 + 1e-9


async def test_a_change_counts_for_the_next_content() -> None:
    projection, recall, _ = await told(BEES, HIVES)
    await projection.apply([record(Tag(id="bees", name="wasps")), record(Tag(id="roofs", name="roofs"))])
    assert await found(recall, "beekeeping") == {}
    assert list(await found(recall, "a wasp")) == ["bees"]
    await projection.apply([record(Exemplar(id="c1", title="Hives in Turku", accepted=("roofs",)))])
    assert list(await found(recall, "hives")) == ["roofs"]
    await projection.apply([tombstone("tags", "roofs")])
    assert await found(recall, "roofs") == {}


async def test_a_decision_alone_changes_what_an_exemplar_votes_for() -> None:
    projection, recall, _ = await told(BEES, LAW, HIVES)
    await projection.apply([record(HIVES.model_copy(update={"accepted": ("law",)}))])
    assert list(await found(recall, "hives")) == ["law"]


async def test_a_withdrawn_content_leaves_no_word() -> None:
    projection, recall, _ = await told(BEES, HIVES)
    await projection.apply([tombstone("exemplars", "c1/people")])
    assert await found(recall, "hives helsinki roofs") == {}
    assert "helsinki" not in recall._contents._words._numbers


async def test_a_contents_own_exemplar_never_votes_for_it() -> None:
    _, recall, _ = await told(BEES, HIVES)
    assert await found(recall, "hives", "c1") == {}
    assert list(await found(recall, "hives", "c2")) == ["bees"]


async def test_all_machine_decisions_on_a_tag_weigh_less_than_one_persons() -> None:
    machine = [
        Exemplar(id=f"m{n}", source="machine", title="hives hives on roofs", accepted=("law",)) for n in range(20)
    ]
    _, recall, _ = await told(
        BEES, LAW, Exemplar(id="p", title="hives in some other place", accepted=("bees",)), *machine
    )
    shares = await found(recall, "hives")
    assert 0 < shares["law"] < shares["bees"]


async def test_scopes_are_obeyed_and_change_with_the_payload() -> None:
    anns = [BEES.model_copy(update={"scopes": ("ann",)}), HIVES.model_copy(update={"scopes": ("ann",)})]
    projection, recall, _ = await told(*anns, LAW)
    ann, bob = [frozenset({"ann"})], [frozenset({"bob"})]
    assert list(await found(recall, "beekeeping", scopes=ann)) == ["bees"]
    assert await found(recall, "beekeeping hives", scopes=bob) == {}
    await projection.apply([record(BEES.model_copy(update={"scopes": ("bob",)}))])
    assert list(await found(recall, "beekeeping", scopes=bob)) == ["bees"]


async def test_what_memory_held_before_is_read_once() -> None:
    """Given a memory that was filled without it, from a snapshot for instance, it is read before the first content."""
    built = memory()
    await Projection(encoder(), built).apply([record(BEES), record(LAW), record(HIVES)])
    recall = Bm25Recall(built)
    assert list(await found(recall, "hives")) == ["bees"]
    await Projection(encoder(), built).apply([tombstone("tags", "law")])
    # It was not notified.
    assert list(await found(recall, "law")) == ["law"]


async def test_a_change_while_memory_is_read_is_newer() -> None:
    built = memory()
    await Projection(encoder(), built).apply([record(BEES), record(HIVES)])
    recall = Bm25Recall(built)
    answer, asked = asyncio.Event(), asyncio.Event()
    fetch = built.tags.fetch

    async def late(keys: Sequence[str]) -> dict[str, Payload]:
        read = await fetch(keys)
        asked.set()
        await answer.wait()
        return read

    built.tags.fetch = late  # type: ignore[method-assign]
    async with asyncio.timeout(120):
        first = asyncio.create_task(found(recall, "beekeeping"))
        await asked.wait()
        await recall.change_tags({"bees": None})
        answer.set()
        assert await first == {}


async def test_a_store_that_is_down_is_read_later() -> None:
    built = exact_memory(encoder().release.name, encoder().release.dimension, Failing)
    recall = Bm25Recall(built)
    tags = built.tags
    assert isinstance(tags, Failing)
    tags.failures = 1
    with pytest.raises(DependencyDown):
        await found(recall, "bees")
    assert await found(recall, "bees") == {}


async def test_hostile_texts_are_bounded() -> None:
    _, recall, _ = await told(BEES, Exemplar(id="long", title="x", text="word " * 90_000, accepted=("bees",)))
    many = " ".join(f"w{n}" for n in range(100_000))
    assert await found(recall, many) == {}
    assert await found(recall, "\x1b[31m\u202e\ufffd" * 10_000) == {}
    assert list(await found(recall, "word " * 100_000)) == ["bees"]


async def test_a_content_has_at_most_30() -> None:
    tags = [Tag(id=f"t{n}", name=f"bees {n}") for n in range(50)]
    near = Exemplar(id="c", title="bees", accepted=tuple(one.id for one in tags))
    _, recall, _ = await told(*tags, near)
    assert len(await found(recall, "bees")) == LISTED


def test_a_language_that_has_no_dictionary_is_refused() -> None:
    with pytest.raises(UserError, match=r"^TAGBUS_COMPONENTS__BM25__LANGUAGES: 'xx' is wrong, expected codes"):
        Bm25Recall(memory(), ("xx",))


async def test_it_is_one_more_component() -> None:
    """When on, it appears in path, versions and evidence, and finds tags that vectors alone do not."""
    given = switched(Settings.model_construct(), {"bm25": {"enabled": True}})
    async with assemble.in_process(given) as stack:
        await filling.fill(stack.projection(), {"tags": [BEES, LAW], "exemplars": [HIVES]}, lambda _: None)
        [one] = await stack.tagger().tag([Content(id="a", title="Mehiläishoito")])
    assert isinstance(one, TaggedContent)
    assert one.path == ("prepare", "encode", "recall", "bm25", "rank", "select", "calibrate")
    assert one.versions.components == {"bm25": "bm25-1-en"}
    assert one.tags[0].id == "bees"
    assert one.tags[0].evidence.scores["bm25"] > 0
