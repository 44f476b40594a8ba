"""From recall to select: memory's own order alone, fused ranks with other recallers, a ranker's order with one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.errors import DependencyDown
from tagbus.stream.memory import TagNumbers, exact_memory
from tagbus.stream.memory.store import Point, Vectors
from tagbus.stream.rank.candidates import Drawn, Facts, Ranker, Rated, best
from tagbus.stream.rank.cross_encoder.pairs import Pair
from tagbus.stream.recall.base import Query, Recaller
from tagbus.stream.recall.graph import Candidate, GraphRecall
from tagbus.stream.recall.lexical.literal import Matches
from tagbus.stream.recall.neighbours import Reach
from tagbus.stream.recall.pool import Floats, Ints, Numbers, Pool
from tagbus.stream.recall.votes import count_votes
from tagbus.stream.tagger import Work
from tests.tagger.ranking import Stages

D = 8
FITTED = RecallDefaults(c2t_threshold=-1, c2c_threshold=-1, tau=0.1, lambda_=0.5, tag_keys=3, content_keys=4)
REACH = Reach(3, 4)


@dataclass
class Says:
    """A recaller with constant results."""

    name: str
    found: Mapping[str, float]

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        return [self.found for _ in query.texts]


@dataclass
class Down:
    """A recaller whose service is down."""

    name: str = "heads"

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        raise DependencyDown("the heads do not answer")


@dataclass
class Longest:
    """A ranker that prefers tags with long names, whichever recaller found them."""

    name: str = "longest"
    reach: Reach = REACH
    known: Sequence[str] = ()
    columns: Sequence[str] = ("letters",)
    pools: list[Pool] = field(default_factory=list)

    def draw(self, pool: Pool) -> Drawn:
        self.pools.append(pool)
        rows = [*(one.rows for one in pool.lists.values()), pool.ballots.rows[pool.ballots.voters]]
        tags = [*(one.tags for one in pool.lists.values()), pool.ballots.tags]
        pairs = np.unique(np.stack([np.concatenate(rows), np.concatenate(tags)]), axis=1)
        return Drawn(pairs[0], pairs[1], count_votes(pool))

    def rate(self, pool: Pool, drawn: Drawn, facts: Facts) -> Rated:
        letters = facts.letters[np.searchsorted(facts.tags, drawn.tags)].astype(np.float32)
        return Rated(letters, letters[:, None])


@dataclass
class Reads:
    """A cross-encoder that records its input."""

    name: str = "reads"
    read: list[Pair] = field(default_factory=list)

    async def rate(self, pairs: Sequence[Pair]) -> Floats:
        self.read += pairs
        return np.zeros(len(pairs), np.float32)


class Turned:
    """A second ranker that asks about all candidates and reverses the first order."""

    columns: Sequence[str] = ("letters", "half")

    def asked(self, rows: Ints, tags: Ints, rated: Rated) -> Ints:
        return np.arange(len(rows))

    def rate(self, tags: Ints, rated: Rated, asked: Ints, found: Floats) -> Rated:
        return Rated(-rated.scores, np.concatenate([rated.features, rated.scores[:, None] / 2], axis=1))


def unit(seed: int) -> Vectors:
    vector = np.random.default_rng(seed).normal(size=D).astype(np.float32)
    return vector / np.linalg.norm(vector)


async def graph(
    exemplars: Sequence[Point] = (),
    names: Mapping[str, str] | None = None,
    replaced: Mapping[str, list[str]] | None = None,
) -> GraphRecall:
    """Tags t0 to t5, some of them `replaced` by others, and exemplars c0 to c7 that carry some of them."""
    memory = exact_memory("r", D)
    tags, contents = memory.tags, memory.exemplars
    names = names or {f"t{i}": f"tag {'x' * i}" for i in range(6)}
    await tags.upsert(
        [
            Point(
                key, unit(i), {"name": name, "aliases": [], "parents": [], "replaced_by": (replaced or {}).get(key, [])}
            )
            for i, (key, name) in enumerate(names.items())
        ]
    )
    rng = np.random.default_rng(0)
    known = [exemplar(f"c{i}", 100 + i, [f"t{t}" for t in set(rng.integers(0, 6, 2).tolist())]) for i in range(8)]
    await contents.upsert([*known, *exemplars])
    return GraphRecall(tags, contents, FITTED, RecallSettings())


async def test_what_a_model_says_of_a_replaced_tag_counts_for_its_successor() -> None:
    """It still knows the tags of its training, both with a ranker's order and with fused ranks."""
    over = await graph(replaced={"t1": ["t4"], "t2": ["gone"]})
    heads = Says("heads", {"t1": 0.9, "t2": 0.8})

    for ranker in (None, Longest()):
        (found,) = await Stages(over, [heads], ranker).recall(["new"], ["text"], unit(7)[None], 10)
        scores = {one.id: one.evidence.scores for one in found}
        assert scores.keys().isdisjoint({"t1", "t2"})
        assert scores["t4"] == {"heads": 0.9}


def exemplar(key: str, seed: int, accepted: list[str], rejected: list[str] | None = None) -> Point:
    return Point(
        f"{key}/people",
        unit(seed),
        {"id": key, "source": "people", "accepted": accepted, "rejected": rejected or []},
    )


async def one(
    over: GraphRecall, others: Sequence[Recaller] = (), ranker: Ranker | None = None, limit: int = 10, key: str = "new"
) -> list[Candidate]:
    return (await Stages(over, others, ranker).recall([key], ["the text"], unit(50)[None], limit))[0]


@settings(max_examples=30)
@given(seeds=st.lists(st.integers(0, 99), max_size=5), limit=st.integers(1, 8))
async def test_without_others_and_ranker_it_is_graph_recall_bit_for_bit(seeds: list[int], limit: int) -> None:
    over = await graph()
    ids = [f"c{seed % 10}" for seed in seeds]
    vectors = np.array([unit(seed) for seed in seeds], np.float32).reshape(len(seeds), D)

    found = await Stages(over).recall(ids, ["text"] * len(ids), vectors, limit)

    assert found == await over.recall(ids, vectors, limit)


async def test_lists_are_fused_by_reciprocal_ranks() -> None:
    over = await graph()
    base = await one(over)
    heads = {base[1].id: 0.9, base[0].id: 0.1}

    fused = await one(over, [Says("heads", heads)])

    scores = {candidate.id: candidate.score for candidate in fused}
    assert scores[base[0].id] == pytest.approx(1 / 61 + 1 / 62)
    assert scores[base[1].id] == pytest.approx(1 / 62 + 1 / 61)
    assert scores[base[2].id] == pytest.approx(1 / 63)
    assert [candidate.score for candidate in fused] == sorted(scores.values(), reverse=True)
    assert {candidate.stage for candidate in fused} == {"fusion"}


async def test_the_evidence_says_which_recaller_gave_what() -> None:
    over = await graph(names={"t0": "The Text", "t1": "sails"})

    found = await one(over, [Says("heads", {"t1": 0.123456}), Says("literal", Matches([("t0", 2.0, "the text")]))])

    evidence = {candidate.id: candidate.evidence for candidate in found}
    assert evidence["t1"].scores == {"heads": pytest.approx(0.1235)}
    assert evidence["t1"].matched == {}
    assert evidence["t0"].scores == {"literal": 2.0}
    assert evidence["t0"].matched == {"literal": "the text"}


@pytest.mark.parametrize("ranker", [None, Longest()])
async def test_unknown_and_rejected_tags_never_come_and_accepted_ones_come_first(ranker: Ranker | None) -> None:
    over = await graph([exemplar("me", 50, ["t0", "gone"], rejected=["t5"])])
    heads = Says("heads", {"gone": 0.9, "t5": 0.8, "t4": 0.7})

    found = await one(over, [heads], ranker, key="me")

    assert found[0].id == "t0"
    assert found[0].evidence.decided
    assert "t4" in {candidate.id for candidate in found}
    assert not {"gone", "t5"} & {candidate.id for candidate in found}
    assert not any(neighbour.id == "me" for candidate in found for neighbour in candidate.evidence.neighbours)


def features(work: Work) -> Mapping[str, float] | None:
    """Of the first tag."""
    assert work.ranking is not None
    return work.ranking.features(work.candidates[0].id)


async def test_with_a_ranker_its_scores_decide_and_its_features_are_shown() -> None:
    over = Stages(await graph(), [Says("heads", {"t5": 0.1})], Longest())
    (work,) = await over.works(["new"], ["the text"], unit(50)[None], 3)
    found = work.candidates

    assert found[0].id == "t5"
    assert found[0].score == len("tag xxxxx")
    assert features(work) == {"letters": len("tag xxxxx")}
    assert [candidate.score for candidate in found] == sorted([c.score for c in found], reverse=True)
    assert len(found) == 3
    assert {candidate.stage for candidate in found} == {"rank"}


async def test_a_second_look_reads_the_texts_and_has_the_last_word() -> None:
    reads = Reads()
    over = Stages(await graph(), [Says("heads", {"t5": 0.1, "t0": 0.05})], Longest(), reads, Turned())

    (work,) = await over.works(["new"], ["the text"], unit(50)[None], 10)
    found = work.candidates

    assert [candidate.score for candidate in found] == [-len(candidate.name) for candidate in found]
    assert found[-1].id == "t5"
    assert features(work) == {"letters": len(found[0].name), "half": len(found[0].name) / 2}
    assert {candidate.stage for candidate in found} == {"rank"}
    # The names are told without the blank at the end.
    assert sorted(reads.read) == sorted((candidate.name.strip(), "the text") for candidate in found)


def test_the_best_of_each_content_and_of_equal_ones_the_smaller_number() -> None:
    rows, tags = np.array([0, 0, 0, 2, 2]), np.array([7, 3, 5, 1, 0])
    scores = np.array([1.0, 1.0, 2.0, 0.0, 0.0])

    assert best(rows, tags, scores, 2).tolist() == [2, 1, 4, 3]
    assert best(rows, tags, scores, 9).tolist() == [2, 1, 0, 4, 3]


async def test_a_ranker_sees_what_each_recaller_found() -> None:
    over, ranker = await graph(), Longest()

    await one(over, [Says("heads", {"t5": 0.25, "t1": 0.125})], ranker)

    (pool,) = ranker.pools
    heads, names = pool.lists["heads"], pool.lists["names"]
    assert heads.scores.tolist() == [0.25, 0.125]
    assert len(names.tags) == FITTED.tag_keys
    assert pool.words.tolist() == [2]
    assert len(pool.ballots.rows) == FITTED.content_keys
    assert sorted(pool.ballots.similarity.tolist(), reverse=True) == pool.ballots.similarity.tolist()
    assert pool.ballots.voters.max() < len(pool.ballots.rows)


async def test_a_batch_with_a_content_that_nothing_is_found_for() -> None:
    memory = exact_memory("r", D)
    tags, contents = memory.tags, memory.exemplars
    over = GraphRecall(tags, contents, FITTED, RecallSettings())

    found = await Stages(over, [Says("heads", {"gone": 1.0})], Longest()).recall(
        ["a", "b"], ["", ""], np.eye(2, D, dtype=np.float32), 5
    )

    assert found == [[], []]


async def test_a_recaller_that_is_down_is_said_so() -> None:
    with pytest.raises(DependencyDown):
        await one(await graph(), [Down()])


def test_numbers_keep_the_known_tags_first() -> None:
    numbers = Numbers(["a", "b"])

    assert numbers.of(["b", "new", "a", "new"]).tolist() == [1, 2, 0, 2]
    assert numbers.ids == ["a", "b", "new"]


def test_numbers_follow_memorys() -> None:
    """Given an initially empty memory, later tags get numbers beyond the known ones, in any order of arrival."""
    memory = TagNumbers()
    numbers = Numbers(["a", "b"], memory)

    assert numbers.of_memory(memory.of(["late", "b", "a"])).tolist() == [2, 1, 0]
    assert numbers.of_memory(memory.of(["later", "late"])).tolist() == [3, 2]
    assert numbers.ids == ["a", "b", "late", "later"]
    assert (len(numbers), numbers.known) == (4, 2)


@pytest.mark.parametrize("ranker", [None, Longest()])
async def test_another_tenants_tag_never_comes_whichever_recaller_knows_it(ranker: Ranker | None) -> None:
    over = await graph(names={"t0": "everybody's", "t1": "Ann's"})
    await over._tags.set_payloads({"t1": {"name": "Ann's", "aliases": [], "parents": [], "scopes": ["ann"]}})
    recall = Stages(over, [Says("heads", {"t1": 0.9, "t0": 0.1})], ranker)
    scopes = [frozenset({"bob"}), frozenset({"ann"}), frozenset[str]()]

    found = await recall.recall(["a", "b", "c"], ["text"] * 3, np.stack([unit(50)] * 3), 10, scopes)

    assert [sorted(candidate.id for candidate in each) for each in found] == [["t0"], ["t0", "t1"], ["t0"]]
