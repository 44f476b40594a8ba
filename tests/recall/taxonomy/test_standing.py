"""A point with a retired tag counts for its successor, and for nothing if the successor is ambiguous."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory import Memory, exact_memory
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.store import Payload, Point, Vectors
from tagbus.stream.recall.graph import Candidate, GraphRecall
from tagbus.stream.recall.taxonomy.standing import NOBODY, Standing
from tagbus.stream.recall.taxonomy.successors import STEPS

D = 8
OPEN = RecallDefaults(c2t_threshold=-1, c2c_threshold=-1, c2c2t_limit=5, tau=0.1, lambda_=0.5)

# The successors of each retired tag; none for one in force.
Taxonomy = Mapping[str, Sequence[str]]


def unit(seed: int) -> Vectors:
    vector = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    return vector / np.linalg.norm(vector)


def payload(key: str, replaced_by: Sequence[str], scopes: Sequence[str] = ()) -> Payload:
    return {"name": f"name of {key}", "replaced_by": list(replaced_by), "scopes": list(scopes)}


async def holding(taxonomy: Taxonomy, exemplars: Mapping[str, Sequence[str]] | None = None) -> Memory:
    """A memory of these tags, and of exemplars by people with some of them."""
    memory = exact_memory("r", D)
    await memory.tags.upsert([Point(key, unit(n), payload(key, to)) for n, (key, to) in enumerate(taxonomy.items())])
    for number, (key, accepted) in enumerate((exemplars or {}).items()):
        body = {"id": key, "source": "people", "accepted": list(accepted), "rejected": []}
        await memory.exemplars.upsert([Point(f"{key}/people", unit(1000 + number), body)])
    return memory


async def ends(taxonomy: Taxonomy, *asked: str) -> list[str | None]:
    """The tag that each of these leads to."""
    store = (await holding(taxonomy)).tags
    found = await Standing(store).follow(store.numbers.of(asked))
    return [None if number == NOBODY else store.numbers.ids[number] for number in found.tolist()]


async def recall(memory: Memory, content: str = "new", limit: int = 10) -> list[Candidate]:
    graph = GraphRecall(memory.tags, memory.exemplars, OPEN, RecallSettings(c2t=False))
    return (await graph.recall([content], unit(1)[None], limit, [frozenset()]))[0]


async def test_a_tag_in_force_counts_as_itself_and_a_missing_one_as_nothing() -> None:
    assert await ends({"a": []}, "a", "strange") == ["a", None]


async def test_a_retired_tag_leads_to_its_successor_over_as_many_steps_as_there_are() -> None:
    chain: Taxonomy = {"a": ["b"], "b": ["c"], "c": ["d"], "d": []}

    assert await ends(chain, "a", "b", "c", "d") == ["d"] * 4


async def test_a_successor_that_is_not_in_force_gives_nothing() -> None:
    assert await ends({"a": ["gone"], "b": ["a"]}, "a", "b") == [None, None]


async def test_a_split_leads_nowhere_until_its_parts_are_one_again() -> None:
    """It is not known which part is right."""
    parts: Taxonomy = {"a": ["b", "c"], "b": [], "c": []}

    assert await ends(parts, "a") == [None]
    assert await ends({**parts, "b": ["d"], "c": ["d"], "d": []}, "a") == ["d"]
    assert await ends({"a": ["b", "gone"], "b": []}, "a") == [None]


@pytest.mark.parametrize(
    "circle", [{"a": ["b"], "b": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["b"]}, {"a": ["x", "b"], "b": ["a"], "x": []}]
)
async def test_a_cycle_is_logged_once_and_leads_nowhere(circle: Taxonomy, caplog: pytest.LogCaptureFixture) -> None:
    store = (await holding(circle)).tags
    standing, asked = Standing(store), store.numbers.of(["a"])

    with caplog.at_level(logging.WARNING):
        assert [(await standing.follow(asked)).tolist() for _ in range(3)] == [[NOBODY]] * 3

    (line,) = caplog.messages
    assert "replace each other: what carries 'a' counts for no tag" in line


async def test_a_chain_of_a_thousand_tags_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    chain = {f"t{n}": [f"t{n + 1}"] for n in range(1_000)} | {"t1000": []}

    assert await ends(chain, "t0", f"t{1_000 - STEPS + 1}") == [None, "t1000"]
    assert f"more than {STEPS} steps" in caplog.text


async def test_a_change_counts_immediately() -> None:
    store = (await holding({"a": [], "b": [], "c": []})).tags
    standing, asked = Standing(store), store.numbers.of(["a"])
    found = []
    for to in ([], ["b"], ["c"], ["b", "c"], []):
        changed = {"a": payload("a", to)}
        await store.set_payloads(changed)
        await standing.change(changed)
        (number,) = (await standing.follow(asked)).tolist()
        found.append(None if number == NOBODY else store.numbers.ids[number])

    assert found == ["a", "b", "c", None, "a"]


async def test_a_change_that_comes_while_the_store_is_asked_wins() -> None:
    class Slow(ExactStore):
        async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
            before = await super().fetch(keys)
            await changed.wait()
            return before

    changed = asyncio.Event()
    store = Slow("r", D)
    await store.upsert([Point(key, unit(0), payload(key, [])) for key in "ab"])
    standing, asked = Standing(store), store.numbers.of(["a"])
    following = asyncio.create_task(standing.follow(asked))
    await asyncio.sleep(0)
    await standing.change({"a": payload("a", ["b"])})
    changed.set()

    assert (await following).tolist() == store.numbers.of(["b"]).tolist()


async def test_the_cost_of_a_change_does_not_depend_on_the_number_of_tags() -> None:
    """A thousand updates of one tag ask the store for nothing, and leave nothing behind."""
    store = (await holding({"a": [], "b": []})).tags
    store.numbers.of([f"t{n}" for n in range(100_000)])
    standing = Standing(store)
    await standing.follow(store.numbers.of(["a", "b"]))
    await store.close()

    for n in range(1_000):
        await standing.change({"a": payload("a", ["b"] if n % 2 else [])})

    assert (await standing.follow(store.numbers.of(["a"]))).tolist() == store.numbers.of(["b"]).tolist()


async def test_exemplars_of_a_merged_tag_vote_for_its_successor() -> None:
    taxonomy: Taxonomy = {"old": ["new"], "new": [], "other": []}
    memory = await holding(taxonomy, {"c1": ["old"], "c2": ["new"], "c3": ["old", "new"], "c4": ["other"]})

    found = {one.id: one for one in await recall(memory)}

    assert found.keys() == {"new", "other"}
    assert found["new"].evidence.votes == 3
    shares = sum(one.score for one in found.values())
    assert shares == pytest.approx(1)


async def test_exemplars_of_a_split_tag_vote_for_neither_part() -> None:
    memory = await holding({"old": ["a", "b"], "a": [], "b": [], "x": []}, {"c1": ["old"], "c2": ["x"]})

    assert [one.id for one in await recall(memory)] == ["x"]


async def test_a_successor_outside_the_scopes_of_a_content_gives_nothing() -> None:
    memory = await holding({"old": ["new"]}, {"c1": ["old"]})
    await memory.tags.upsert([Point("new", unit(5), payload("new", [], ["bob"]))])
    graph = GraphRecall(memory.tags, memory.exemplars, OPEN, RecallSettings())

    for scopes, found in (("ann", []), ("bob", ["new"])):
        (candidates,) = await graph.recall(["c"], unit(1)[None], 10, [frozenset({scopes})])
        assert [one.id for one in candidates] == found


async def test_a_thousand_exemplars_give_no_tag_that_is_retired() -> None:
    """Neither a removed one nor one replaced by an unknown tag."""
    many = {f"c{n}": ["taken", "replaced", "kept"] for n in range(1_000)}
    memory = await holding({"replaced": ["strange"], "kept": []}, many)

    assert [one.id for one in await recall(memory)] == ["kept"]


@pytest.mark.parametrize(
    ("accepted", "rejected", "yes", "no"),
    [
        (["old"], [], ["new"], set()),
        ([], ["old"], [], {"new"}),
        (["old"], ["also old"], ["new"], set()),
        (["old"], ["new"], [], {"new"}),
        (["new"], ["old"], ["new"], set()),
        (["split"], [], [], set()),
        ([], ["split"], [], {"a", "b"}),
        (["a"], ["split"], ["a"], {"b"}),
        (["gone"], ["gone too"], ["gone"], {"gone too"}),
    ],
)
async def test_decisions_follow_what_they_are_about(
    accepted: list[str], rejected: list[str], yes: list[str], no: set[str]
) -> None:
    taxonomy = {"old": ["new"], "also old": ["new"], "new": [], "split": ["a", "b"], "a": [], "b": []}
    standing = Standing((await holding(taxonomy)).tags)

    assert await standing.decisions(accepted, rejected) == (tuple(yes), frozenset(no))


async def test_a_model_that_knows_the_old_tag_speaks_of_its_successor() -> None:
    taxonomy = {"old": ["new"], "new": [], "split": ["new", "b"], "b": [], "lost": ["gone"]}
    standing = Standing((await holding(taxonomy)).tags)

    said = [{"lost": 0.9, "new": 0.4, "old": 0.6, "split": 0.5, "b": 0.5}, {"b": 1.0}]

    found = await standing.listing(said, None)

    assert found == [{"new": 0.6, "b": 0.5}, {"b": 1.0}]
    assert list(found[0]) == ["new", "b"]


@settings(max_examples=60, deadline=None)
@given(
    taxonomy=st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefgz"), max_size=3), max_size=7)
)
async def test_votes_only_ever_reach_a_tag_in_force(taxonomy: dict[str, list[str]]) -> None:
    found = await ends(taxonomy, *taxonomy)

    for key, end in zip(taxonomy, found, strict=True):
        if taxonomy[key]:
            assert end is None or taxonomy.get(end) == []
        else:
            assert end == key
