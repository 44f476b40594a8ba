"""Recall: candidates, scores and evidence, exact against a brute-force reading of the papers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory import Hits, exact_memory
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.store import Payload, Point, Scopes, Vectors
from tagbus.stream.recall.graph import Candidate, GraphRecall

D = 8
OPEN = RecallDefaults(
    c2t_threshold=-1,
    c2t_limit=1000,
    c2c_threshold=-1,
    c2c2t_limit=1000,
    tau=0.1,
    lambda_=0.5,
    tag_keys=5,
    content_keys=6,
)


@dataclass
class World:
    """A memory small enough to be computed by hand: vectors, and what each exemplar accepted and rejected."""

    tags: dict[str, Vectors]
    exemplars: dict[str, tuple[Vectors, list[str]]]
    source: str = "people"

    async def stores(self) -> tuple[ExactStore, ExactStore]:
        memory = exact_memory("r", D)
        tags, exemplars = memory.tags, memory.exemplars
        await tags.upsert([Point(key, vector, {"name": f"name of {key}"}) for key, vector in self.tags.items()])
        for key, (vector, accepted) in self.exemplars.items():
            await exemplars.upsert([exemplar(key, vector, accepted, source=self.source)])
        return tags, exemplars


def exemplar(
    key: str, vector: Vectors, accepted: list[str], rejected: list[str] | None = None, source: str = "people"
) -> Point:
    payload = {"id": key, "source": source, "accepted": accepted, "rejected": rejected or []}
    return Point(f"{key}/{source}", vector, payload)


def unit(seed: int) -> Vectors:
    vector = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    return vector / np.linalg.norm(vector)


def world(tags: int, exemplars: int, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    return World(
        {f"t{i}": unit(seed + i) for i in range(tags)},
        {
            f"c{i}": (unit(seed + 1000 + i), [f"t{t}" for t in sorted(set(rng.integers(0, tags, 3).tolist()))])
            for i in range(exemplars)
        },
    )


def brute_force(world: World, query: Vectors, fitted: RecallDefaults, own: str = "") -> dict[str, float]:
    """RAE-XMC, equation 4, straight from the paper: every key, every value, one softmax."""
    cosine = lambda vector: float(np.float64(query @ vector))  # noqa: E731
    tags = sorted(world.tags, key=lambda key: (-cosine(world.tags[key]), key))[: fitted.tag_keys]
    contents = [key for key in world.exemplars if key != own]
    contents = sorted(contents, key=lambda key: (-cosine(world.exemplars[key][0]), key))[: fitted.content_keys]
    weights = {key: np.exp(cosine(world.tags[key]) / fitted.tau) for key in tags}
    votes = {key: np.exp(cosine(world.exemplars[key][0]) / fitted.tau) for key in contents}
    total = sum(weights.values()) + sum(votes.values())
    scores: dict[str, float] = {}
    for key in tags:
        scores[key] = (1 - fitted.lambda_) * weights[key] / total
    for key in contents:
        for tag in world.exemplars[key][1]:
            scores[tag] = scores.get(tag, 0.0) + fitted.lambda_ * votes[key] / total
    return scores


async def recall(
    world: World, query: Vectors, own: str = "new", fitted: RecallDefaults = OPEN, **off: bool
) -> list[Candidate]:
    tags, exemplars = await world.stores()
    graph = GraphRecall(tags, exemplars, fitted, RecallSettings.model_validate(off))
    return (await graph.recall([own], query[None], 100))[0]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    tags=st.integers(1, 12),
    exemplars=st.integers(0, 12),
    lambda_=st.floats(0, 1),
    tau=st.floats(0.02, 1),
)
async def test_scores_equal_the_formula(seed: int, tags: int, exemplars: int, lambda_: float, tau: float) -> None:
    given_world = world(tags, exemplars, seed)
    query = unit(seed + 99_999)
    fitted = OPEN.model_copy(update={"lambda_": lambda_, "tau": tau})
    own = "c0"

    found = await recall(given_world, query, own, fitted)

    # People's decisions about c0 itself come first and are tested below; here every score counts.
    expected = brute_force(given_world, query, fitted, own)
    got = {candidate.id: candidate.score for candidate in found}
    assert {key for key in got if key in expected} == set(expected)
    for key, score in expected.items():
        assert got[key] == pytest.approx(score, abs=1e-6)


async def test_candidates_are_ordered_by_score() -> None:
    found = await recall(world(10, 10), unit(7))
    scores = [candidate.score for candidate in found]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 3


async def test_thresholds_and_limits_bound_each_meta_path() -> None:
    given_world, query = world(12, 12), unit(5)
    cosines = sorted((float(query @ vector) for vector in given_world.tags.values()), reverse=True)

    only_tags = await recall(given_world, query, c2c2t=False)
    three = await recall(given_world, query, fitted=OPEN.model_copy(update={"c2t_limit": 3}), c2c2t=False)
    near = OPEN.model_copy(update={"c2t_threshold": cosines[1] - 1e-4, "tag_keys": 12})
    two = await recall(given_world, query, fitted=near, c2c2t=False)
    one_vote = await recall(given_world, query, fitted=OPEN.model_copy(update={"c2c2t_limit": 1}), c2t=False)
    no_vote = await recall(given_world, query, fitted=OPEN.model_copy(update={"c2c_threshold": 0.9999}), c2t=False)

    assert len(only_tags) == OPEN.tag_keys
    assert len(three) == 3
    assert len(two) == 2
    assert len(one_vote) == 1
    assert no_vote == []


async def test_evidence_says_which_path_and_who_voted() -> None:
    query = unit(1)
    given_world = World({"near": query, "far": -query}, {"c1": (query, ["far"]), "c2": (unit(2), ["far"])})

    found = await recall(given_world, query, fitted=OPEN.model_copy(update={"tag_keys": 1, "c2t_limit": 1}))

    evidence = {candidate.id: candidate.evidence for candidate in found}
    assert evidence["near"].similarity == pytest.approx(1.0)
    assert evidence["near"].votes == 0
    assert evidence["far"].similarity is None
    assert evidence["far"].votes == 2
    assert [neighbour.id for neighbour in evidence["far"].neighbours] == ["c1", "c2"]
    assert evidence["far"].neighbours[0].similarity == pytest.approx(1.0)


async def test_a_contents_own_exemplar_does_not_vote() -> None:
    query = unit(1)
    given_world = World({"t": unit(3)}, {"me": (query, ["t"])}, source="machine")

    found = await recall(given_world, query, own="me", c2t=False)

    assert found == []


async def test_what_people_accepted_comes_first_and_what_they_rejected_never() -> None:
    tags, exemplars = await world(4, 0).stores()
    query = unit(0)
    await exemplars.upsert([exemplar("me", query, ["t3"], rejected=["t0"])])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings())

    found = (await graph.recall(["me"], query[None], 100))[0]

    assert found[0].id == "t3"
    assert found[0].evidence.decided
    assert [candidate.evidence.decided for candidate in found[1:]] == [False, False]
    assert "t0" not in {candidate.id for candidate in found}


async def test_a_retired_tag_is_never_found_though_exemplars_still_carry_it() -> None:
    given_world = world(3, 6)
    tags, exemplars = await given_world.stores()
    await tags.delete(["t1"])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings())

    found = (await graph.recall(["new"], unit(4)[None], 100))[0]

    assert {candidate.id for candidate in found} <= {"t0", "t2"}


async def test_all_machine_decisions_on_a_tag_weigh_less_than_one_persons() -> None:
    query = unit(1)
    tags, exemplars = await World({"by-people": unit(2), "by-machine": unit(3)}, {}).stores()
    await exemplars.upsert([exemplar("p", query, ["by-people"])])
    await exemplars.upsert([exemplar(f"m{i}", query, ["by-machine"], source="machine") for i in range(5)])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings(c2t=False))

    found = (await graph.recall(["new"], query[None], 100))[0]

    scores = {candidate.id: candidate.score for candidate in found}
    assert 0 < scores["by-machine"] < scores["by-people"]


async def test_machine_decisions_on_one_tag_weigh_less_than_each_of_many_people() -> None:
    query = unit(1)
    names = [f"by-person-{n}" for n in range(5)]
    tags, exemplars = await World({name: unit(2 + n) for n, name in enumerate([*names, "by-machine"])}, {}).stores()
    await exemplars.upsert([exemplar(f"p{n}", query, [name]) for n, name in enumerate(names)])
    await exemplars.upsert([exemplar(f"m{n}", query, ["by-machine"], source="machine") for n in range(50)])
    graph = GraphRecall(tags, exemplars, OPEN.model_copy(update={"content_keys": 100}), RecallSettings(c2t=False))

    found = (await graph.recall(["new"], query[None], 100))[0]

    scores = {candidate.id: candidate.score for candidate in found}
    assert 0 < scores["by-machine"] < min(scores[name] for name in names)


async def test_people_replace_the_machine_for_the_same_content() -> None:
    query = unit(1)
    tags, exemplars = await World({"right": unit(2), "wrong": unit(3)}, {}).stores()
    await exemplars.upsert([exemplar("c", query, ["wrong"], source="machine"), exemplar("c", query, ["right"])])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings(c2t=False))

    found = (await graph.recall(["new"], query[None], 100))[0]

    assert [candidate.id for candidate in found] == ["right"]


async def test_an_empty_memory_and_an_empty_batch_give_nothing() -> None:
    tags, exemplars = await World({}, {}).stores()
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings())

    assert await graph.recall([], np.zeros((0, D), np.float32), 100) == []
    assert (await graph.recall(["a"], unit(1)[None], 100))[0] == []


class Meeting(ExactStore):
    """A store that answers once as many calls are in flight as the barrier waits for."""

    barrier = asyncio.Barrier(1)

    async def search(self, queries: Vectors, limit: int, scopes: Scopes = None, at: datetime | None = None) -> Hits:
        await self.barrier.wait()
        return await super().search(queries, limit, scopes, at)

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        await self.barrier.wait()
        return await super().fetch(keys)


async def test_memory_is_asked_for_tags_exemplars_and_decisions_concurrently() -> None:
    """Given stores that answer when three calls are in flight, a content is looked up in one round trip, once the tags
    that its neighbours carry are known."""
    memory = exact_memory("r", D, Meeting)
    tags, exemplars = memory.tags, memory.exemplars
    assert isinstance(tags, Meeting)
    assert isinstance(exemplars, Meeting)
    await exemplars.upsert([exemplar("a", unit(1), ["t1"])])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings())
    await graph.standing.change({"t1": {"name": "tag"}})
    tags.barrier = exemplars.barrier = asyncio.Barrier(3)
    async with asyncio.timeout(120):
        (seen,) = await graph.look(["a"], unit(2)[None], graph.reach)
    assert seen.accepted == ("t1",)


def scoped(point: Point, *scopes: str) -> Point:
    return Point(point.key, point.vector, {**point.payload, "scopes": list(scopes)})


async def test_what_other_tenants_decided_does_not_vote() -> None:
    query = unit(1)
    tags, exemplars = await World({"common": unit(2), "anns": unit(3), "bobs": unit(4)}, {}).stores()
    await exemplars.upsert([exemplar("everybody", query, ["common"])])
    await exemplars.upsert([scoped(exemplar(name, query, [f"{name}s"]), name) for name in ("ann", "bob")])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings(c2t=False))
    scopes = [frozenset({"ann"}), frozenset({"bob"}), frozenset({"ann", "bob"}), frozenset[str]()]

    found = await graph.recall(["a", "b", "c", "d"], np.stack([query] * 4), 100, scopes)

    assert [sorted(candidate.id for candidate in each) for each in found] == [
        ["anns", "common"],
        ["bobs", "common"],
        ["anns", "bobs", "common"],
        ["common"],
    ]
    assert {neighbour.id for one in found[0] for neighbour in one.evidence.neighbours} == {"everybody", "ann"}


async def test_another_tenants_tag_is_not_found_however_one_comes_to_it() -> None:
    """By its text, by an exemplar without scopes, and by people's decisions on the content itself."""
    query = unit(1)
    tags, exemplars = await World({}, {}).stores()
    await tags.upsert(
        [Point("common", unit(2), {"name": "Common"}), scoped(Point("anns", query, {"name": "Ann's"}), "ann")]
    )
    await exemplars.upsert([exemplar("everybody", query, ["common", "anns"]), exemplar("me", query, ["anns"])])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings())

    for scopes, expected in (({"ann"}, ["anns", "common"]), ({"bob"}, ["common"]), (set[str](), ["common"])):
        (found,) = await graph.recall(["me"], query[None], 100, [frozenset(scopes)])
        assert [candidate.id for candidate in found] == expected


async def test_what_another_tenant_decided_on_a_content_of_the_same_id_does_not_count() -> None:
    query = unit(1)
    tags, exemplars = await World({"common": unit(2), "other": unit(3)}, {}).stores()
    await exemplars.upsert([scoped(exemplar("me", query, ["common"], rejected=["other"]), "ann")])
    graph = GraphRecall(tags, exemplars, OPEN, RecallSettings())
    scopes = [frozenset({"ann"}), frozenset({"bob"})]

    anns, bobs = await graph.recall(["me", "me"], np.stack([query] * 2), 100, scopes)

    assert [(one.id, one.evidence.decided) for one in anns] == [("common", True)]
    assert sorted((one.id, one.evidence.decided) for one in bobs) == [("common", False), ("other", False)]


async def test_results_do_not_depend_on_the_batch() -> None:
    """Given contents with nothing, with machine decisions alone and with both around them, each is scored as alone."""
    given_world = world(8, 6)
    tags, exemplars = await given_world.stores()
    await exemplars.upsert([exemplar(f"m{i}", unit(500 + i), ["t1", "t2"], source="machine") for i in range(4)])
    await exemplars.upsert([exemplar("c1", unit(1001), ["t3"], source="machine")])
    graph = GraphRecall(tags, exemplars, OPEN.model_copy(update={"c2c_threshold": 0.2}), RecallSettings())
    ids = ["new", "c1", "m2", "c5", "other"]
    vectors = np.stack([unit(3), unit(1001), unit(502), unit(1005), unit(77)])

    together = await graph.recall(ids, vectors, 20)

    assert together == [
        (await graph.recall([one], vector[None], 20))[0] for one, vector in zip(ids, vectors, strict=True)
    ]


def test_stores_of_two_memories_are_refused() -> None:
    with pytest.raises(ValueError, match="do not share their numbers"):
        GraphRecall(exact_memory("r", D).tags, exact_memory("r", D).exemplars, OPEN, RecallSettings())
