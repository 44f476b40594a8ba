"""A second encoder: its neighbours' votes and its tag vectors' scores, by one encoding of each content."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.release import Release, default_folder, load_release
from tagbus.stream.errors import DependencyDown
from tagbus.stream.memory import exact_memory
from tagbus.stream.memory.store import Point
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.second_encoder import TAGS, VOTES, SecondEncoder
from tagbus.stream.recall.tagvectors import TagSearch, TagVectors

D = 3
WORDS = {"fire": 0, "soil": 1, "zebra": 2}
NONE = np.zeros((0, 1), np.float32)


class Axes:
    """An encoder with one axis per word; it counts its calls."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.down = False

    @property
    def release(self) -> Release:
        return load_release(default_folder()).model_copy(update={"name": "axes-1", "dimension": D})

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        if self.down:
            raise DependencyDown("the encoder does not answer")
        return np.stack([vector(*text.split()) for text in texts])

    async def close(self) -> None:
        self.down = True


def vector(*words: str) -> Vectors:
    found = np.zeros(D, np.float32)
    for word in words:
        found[WORDS[word]] += 1
    return np.asarray(found / np.linalg.norm(found), np.float32)


def exemplar(name: str, words: str, accepted: Sequence[str], source: str = "people") -> Point:
    payload = {"id": name, "source": source, "accepted": list(accepted), "rejected": []}
    return Point(f"{name}/{source}", vector(*words.split()), payload)


async def second_encoder(encoder: Axes, *exemplars: Point) -> SecondEncoder:
    memory = exact_memory("axes-1", D)
    tags, store = memory.tags, memory.exemplars
    await store.upsert(exemplars)
    carried = sorted({str(tag) for one in exemplars for tag in one.payload["accepted"]})  # type: ignore[union-attr]
    await tags.upsert([Point(tag, vector("zebra"), {"name": tag}) for tag in carried])
    vectors = TagVectors(("t-fire", "t-soil", "t-zebra"), np.eye(D, dtype=np.float32), np.zeros(D, np.float32), 20.0)
    return SecondEncoder(encoder, tags, store, TagSearch(vectors))


MEMORY = (
    exemplar("c1", "fire", ["t-fire"]),
    exemplar("c2", "fire soil", ["t-fire", "t-soil"]),
    exemplar("c3", "zebra", ["t-zebra"]),
)


async def test_neighbours_vote_the_nearer_the_more() -> None:
    made = await second_encoder(Axes(), *MEMORY)

    first, second = await made.votes(Query(["a", "b"], ["fire", "zebra"], NONE))

    assert list(first)[:2] == ["t-fire", "t-soil"]
    assert next(iter(second)) == "t-zebra"
    assert all(1 >= share > 0 for share in (*first.values(), *second.values()))


async def test_a_contents_own_exemplar_does_not_vote_for_it() -> None:
    made = await second_encoder(Axes(), *MEMORY, exemplar("a", "zebra", ["t-own"], "machine"))

    (found,) = await made.votes(Query(["a"], ["zebra"], NONE))
    (other,) = await made.votes(Query(["b"], ["zebra"], NONE))

    assert "t-own" not in found
    assert "t-own" in other


async def test_without_neighbours_nothing_is_voted_for() -> None:
    made = await second_encoder(Axes())

    assert await made.votes(Query(["a", "b"], ["fire", "soil"], NONE)) == [{}, {}]


async def test_tag_vectors_say_what_a_content_is_like() -> None:
    made = await second_encoder(Axes(), *MEMORY)

    (found,) = await made.tags(Query(["a"], ["soil soil fire"], NONE))

    assert list(found) == ["t-soil", "t-fire", "t-zebra"]
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


async def test_both_lists_of_a_batch_cost_one_look_at_its_contents() -> None:
    encoder = Axes()
    made = await second_encoder(encoder, *MEMORY)
    query = Query(["a", "b"], ["fire", "soil"], NONE)

    lists = await asyncio.gather(*(one.recall(query) for one in made.recallers()))

    assert [one.name for one in made.recallers()] == [VOTES, TAGS]
    assert [next(iter(one)) for one in lists[1]] == ["t-fire", "t-soil"]
    assert encoder.asked == [["fire", "soil"]]


async def test_another_batch_is_encoded_again() -> None:
    encoder = Axes()
    made = await second_encoder(encoder, *MEMORY)

    await made.tags(Query(["a"], ["fire"], NONE))
    await made.tags(Query(["a"], ["fire"], NONE))

    assert encoder.asked == [["fire"], ["fire"]]


async def test_both_callers_see_an_encoder_that_does_not_answer() -> None:
    encoder = Axes()
    made = await second_encoder(encoder, *MEMORY)
    encoder.down = True
    query = Query(["a"], ["fire"], NONE)

    for one in made.recallers():
        with pytest.raises(DependencyDown):
            await one.recall(query)


async def test_closing_waits_for_calls_in_progress() -> None:
    encoder = Axes()
    made = await second_encoder(encoder, *MEMORY)
    await made.tags(Query(["a"], ["fire"], NONE))

    await made.close()

    assert encoder.down


async def test_what_other_tenants_decided_does_not_vote() -> None:
    anns = exemplar("c1", "fire", ["t-anns"])
    made = await second_encoder(Axes(), Point(anns.key, anns.vector, {**anns.payload, "scopes": ["ann"]}), *MEMORY[1:])

    query = Query(["a", "b"], ["fire", "fire"], NONE, [frozenset({"ann"}), frozenset({"bob"})])
    first, second = await made.votes(query)

    assert "t-anns" in first
    assert "t-anns" not in second
    assert "t-soil" in second
