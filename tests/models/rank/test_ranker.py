"""Training the ranker: tags masked as new, tag counts, and a folder that the tagger loads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from tagbus.models.data.splits import Split
from tagbus.models.journal import Journal
from tagbus.models.rank.boost import choose
from tagbus.models.rank.candidates import Candidates, Recipe, Source, TrainingSet, collect, mask_as_new
from tagbus.models.rank.ranker import Counted, Over, remember, train
from tagbus.models.rank.second_stage import CrossScoring
from tagbus.models.rank.statistics import count_tags, count_terms
from tagbus.stream import calibrate
from tagbus.stream.app import assemble
from tagbus.stream.config import RecallSettings, Settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.errors import UserError
from tagbus.stream.memory import exact_memory
from tagbus.stream.memory.store import Point, Vectors
from tagbus.stream.rank import trees
from tagbus.stream.rank.candidates import Facts
from tagbus.stream.rank.cross_encoder.pairs import Pair, Wording
from tagbus.stream.rank.features.broader import Broader
from tagbus.stream.rank.features.tables import Statistics, TableName
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.pool import NAMES, Floats, Numbers, Pool, pool
from tests.releases import SHIPPED
from tests.tagger.ranking import Stages

D = 16
TAGS = 40
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(TAGS, D)).astype(np.float32)


@dataclass
class Heads:
    """Heads that return a content's tags among five, mostly first: the text names its tags."""

    name: str = "heads"

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        found = []
        for text in query.texts:
            rng = np.random.default_rng(len(text) + int(text.split()[0]))
            noise = {f"t{tag}": float(rng.random() * 0.5) for tag in rng.integers(0, TAGS, 4)}
            right = {f"t{tag}": float(rng.random()) for tag in text.split()}
            found.append(dict(sorted((noise | right).items(), key=lambda pair: -pair[1])))
        return found


def unit(vector: Vectors) -> Vectors:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def annotated(count: int, seed: int, prefix: str) -> tuple[list[Exemplar], Vectors]:
    """Contents with two tags each, near both."""
    rng = np.random.default_rng(seed)
    tags = rng.integers(0, TAGS, (count, 2))
    vectors = np.stack([unit(CENTRES[pair].sum(axis=0) + rng.normal(size=D)) for pair in tags])
    items = [
        Exemplar(id=f"{prefix}{i}", text=f"{pair[0]} {pair[1]}", accepted=tuple({f"t{tag}" for tag in pair}))
        for i, pair in enumerate(tags.tolist())
    ]
    return items, vectors


async def source(seed: int = 1) -> Source:
    memory = exact_memory("r", D)
    tags, contents = memory.tags, memory.exemplars
    ids = [f"t{i}" for i in range(TAGS)]
    await tags.upsert(
        [
            Point(key, unit(centre), {"name": key, "aliases": [], "parents": []})
            for key, centre in zip(ids, CENTRES, strict=True)
        ]
    )
    items, vectors = annotated(400, seed, "train-")
    await contents.upsert(
        [
            Point(
                item.key,
                vector,
                {"id": item.id, "source": "people", "accepted": list(item.accepted), "rejected": []},
            )
            for item, vector in zip(items, vectors, strict=True)
        ]
    )
    graph = GraphRecall(tags, contents, RecallDefaults(), RecallSettings())
    numbers = Numbers(ids, graph.numbers)
    return Source(graph, [Heads()], numbers, Statistics(count_tags(numbers, iter(items))))


def counted(over: Source) -> Counted:
    return Counted(over.numbers.ids[: over.numbers.known], over.statistics)


RECIPE = Recipe(trees=50, leaves=7, names=10, neighbours=20, threads=1)
OVER = Over("r", (NAMES, "heads"), {"heads": "heads-1"})
NAMES_ALONE = Over("r")


async def batch(over: Source, items: Sequence[Exemplar], vectors: Vectors) -> tuple[Pool, Facts]:
    seen = await over.graph.look([item.id for item in items], vectors, over.graph.reach)
    texts = [item.text for item in items]
    full = pool(over.numbers, texts, seen, {"heads": await Heads().recall(Query([], texts, vectors))})
    none = np.zeros(0, np.int64)
    return full, Facts(np.arange(TAGS), np.full(TAGS, 2), none, none)


async def test_counts_are_those_of_a_loop() -> None:
    items = [
        Exemplar(id="1", text="x", accepted=("a", "b")),
        Exemplar(id="2", text="x", accepted=("b", "a", "c")),
        Exemplar(id="3", text="x", accepted=("c", "unheard")),
    ]

    tables = count_tags(Numbers(["a", "b", "c", "d"]), iter(items), fewest=2)

    assert tables.counts.tolist() == [2, 2, 2, 0]
    assert tables.contents == 3
    assert tables.with_(np.array([0, 1, 0]), np.array([1, 0, 2])).tolist() == [2, 2, 0]


async def test_a_tag_treated_as_new_is_known_to_nothing_that_was_trained() -> None:
    over = await source()
    items, vectors = annotated(30, 5, "val-")
    full, facts = await batch(over, items, vectors)

    hidden, twice = mask_as_new(full, facts, over.statistics.tables, 0, Recipe(new_share=0.3))

    width = full.width
    new = set(zip(*_new(hidden, NAMES, width), strict=True))
    heads = hidden.lists["heads"]
    assert not set(zip(heads.rows.tolist(), heads.tags.tolist(), strict=True)) & new
    assert (heads.tags < width).all()
    assert 0.2 < len(new) / len(full.lists[NAMES].tags) < 0.4
    assert len(hidden.lists[NAMES].tags) == len(full.lists[NAMES].tags)
    assert over.statistics.tables.count(np.arange(width, 2 * width)).sum() == 0
    assert twice.tags.tolist() == list(range(2 * width))
    votes = hidden.ballots
    # A fifth of the masked tags keeps five exemplars and a fifth twenty, of about twenty: most votes are removed.
    assert 0 < (votes.tags >= width).sum() < 0.3 * 0.6 * len(full.ballots.tags)
    assert (votes.tags < width).sum() == pytest.approx(0.7 * len(full.ballots.tags), rel=0.1)


def _new(hidden: Pool, name: str, width: int) -> tuple[list[int], list[int]]:
    listed = hidden.lists[name]
    here = listed.tags >= width
    return listed.rows[here].tolist(), (listed.tags[here] - width).tolist()


async def test_nothing_is_new_with_a_share_of_zero() -> None:
    over = await source()
    full, facts = await batch(over, *annotated(10, 5, "val-"))

    hidden, _ = mask_as_new(full, facts, over.statistics.tables, 0, Recipe(new_share=0))

    assert hidden.lists["heads"].tags.tolist() == full.lists["heads"].tags.tolist()
    assert hidden.ballots.tags.tolist() == full.ballots.tags.tolist()


async def test_a_trained_ranker_beats_fused_ranks_and_its_folder_is_taken(tmp_path: Path) -> None:
    over = await source()
    items, vectors = annotated(200, 7, "val-")

    manifest = train(tmp_path, await collect(over, items, vectors, RECIPE), counted(over), OVER, RECIPE)

    ranker = trees.TreeRanker.load(tmp_path, OVER)
    assert ranker.name == manifest.name
    assert manifest.fitted_on == 200
    fitted = Fingerprint("r", "recall+heads+rank", {"heads": "heads-1", "ranker": manifest.name})
    assert calibrate.load(tmp_path / trees.CALIBRATION, fitted).contents == 200
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["name"] == manifest.name
    test, queries = annotated(200, 8, "test-")
    learnt = await right_first(Stages(over.graph, over.others, ranker), test, queries)
    assert learnt > await right_first(Stages(over.graph, over.others), test, queries)
    assert learnt > 0.6


def alike(contents: int) -> TrainingSet:
    """Contents with two candidates each, and features that are the same for all."""
    rows, tags = np.repeat(np.arange(contents), 2), np.tile(np.arange(2), contents)
    same = Candidates(rows, tags, np.zeros((len(rows), 3), np.float32), tags == 0, np.zeros(len(rows), np.float32))
    return TrainingSet(same, same, [np.zeros(1, np.int64)] * contents, np.ones(2))


def test_trees_that_tell_nothing_apart_leave_finite_scores(tmp_path: Path) -> None:
    assert np.ptp(choose(alike(60), RECIPE, Journal(tmp_path / "log")).scores) == 0


def test_a_content_alone_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 contents are too few to learn from: half of them give no candidates"):
        choose(alike(1), RECIPE, Journal(tmp_path / "log"))


async def test_a_ranker_that_was_cut_off_before_its_calibration_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a manifest counts as trained: a resumed run would leave the calibration out."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "fit", stop)
    over = await source()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, await collect(over, *annotated(60, 7, "val-"), RECIPE), counted(over), OVER, RECIPE)
    assert (tmp_path / trees.MODEL).exists()
    assert not (tmp_path / trees.MANIFEST).exists()


async def test_what_named_tables_count_goes_with_the_ranker_that_reads_them(tmp_path: Path) -> None:
    """The words of a content are the numbers of its tags: a table of words alone must find them, without heads."""
    over = replace(await source(), others=[])
    named = [count_terms(over.numbers, iter(annotated(400, 1, "train-")[0])), Broader()]
    over = replace(over, statistics=replace(over.statistics, named=named))
    recipe = replace(RECIPE, tables=(TableName.TERMS, TableName.BROADER))
    items, vectors = annotated(200, 7, "val-")
    bare, wide = tmp_path / "bare", tmp_path / "wide"
    for folder, reads in ((bare, replace(over, statistics=replace(over.statistics, named=[]))), (wide, over)):
        folder.mkdir()
        train(
            folder,
            await collect(reads, items, vectors, recipe),
            counted(reads),
            NAMES_ALONE,
            with_tables(recipe, reads),
        )

    assert trees.read_manifest(wide).columns[-len(Broader.columns) :] == Broader.columns
    assert "tables" not in json.loads((bare / trees.MANIFEST).read_text())
    test, queries = annotated(200, 8, "test-")
    before, after = [
        await right_first(Stages(over.graph, over.others, trees.TreeRanker.load(one, NAMES_ALONE)), test, queries)
        for one in (bare, wide)
    ]
    assert after > before + 0.05


def with_tables(recipe: Recipe, reads: Source) -> Recipe:
    return replace(recipe, tables=tuple(TableName(one.name) for one in reads.statistics.named))


async def right_first(recall: Stages, items: Sequence[Exemplar], vectors: Vectors) -> float:
    """P@1 as a fraction."""
    found = await recall.recall([item.id for item in items], [item.text for item in items], vectors, 5)
    return float(np.mean([one[0].id in item.accepted for one, item in zip(found, items, strict=True)]))


@dataclass
class Reads:
    """A cross-encoder that is right nine times in ten: the text names its tags."""

    name: str = "cross_encoder-00000000"

    async def rate(self, pairs: Sequence[Pair]) -> Floats:
        return self.score(pairs)

    def score(self, pairs: Sequence[Pair]) -> Floats:
        right = [f" {tag[1:]} " in f" {content} " for tag, content in pairs]
        sure = [crc32("".join(pair).encode()) % 10 for pair in pairs]
        return np.array([one != (each == 0) for one, each in zip(right, sure, strict=True)], np.float32)


async def test_a_second_stage_learns_what_a_cross_encoder_is_worth(tmp_path: Path) -> None:
    over, recipe = replace(await source(), others=[]), replace(RECIPE, top=8)
    items, vectors = annotated(200, 7, "val-")
    training_set = await collect(over, items, vectors, recipe)
    payloads = await over.graph.facts(over.numbers.ids)
    scoring = CrossScoring(Reads(), Wording([item.text for item in items], over.numbers.ids, payloads))
    alone, both = tmp_path / "alone", tmp_path / "both"
    for folder in (alone, both):
        folder.mkdir()
    first = train(alone, training_set, counted(over), NAMES_ALONE, recipe)

    manifest = train(both, training_set, counted(over), NAMES_ALONE, recipe, scoring)

    assert "second_stage" not in json.loads((alone / trees.MANIFEST).read_text())
    assert manifest.second_stage is not None
    assert manifest.second_stage.components == {"cross_encoder": "cross_encoder-00000000"}
    assert manifest.second_stage.top == 8
    # The first stage does not depend on the second.
    assert manifest.model_copy(update={"name": first.name, "second_stage": None}) == first
    assert (both / trees.MODEL).read_bytes() == (alone / trees.MODEL).read_bytes()
    versions = {"ranker": manifest.name, "cross_encoder": "cross_encoder-00000000"}
    fitted = Fingerprint("r", "recall+rank+cross_encoder", versions)
    assert calibrate.load(both / trees.CALIBRATION, fitted).contents == 200
    test, queries = annotated(200, 8, "test-")
    ranked = trees.TreeRanker.load(alone, NAMES_ALONE)
    reads = Reads()
    cross_encoded = trees.TreeRanker.load(both, Over("r", components={"cross_encoder": reads.name}))
    before = await right_first(Stages(over.graph, over.others, ranked), test, queries)
    assert (
        await right_first(
            Stages(over.graph, over.others, cross_encoded, reads, cross_encoded.second_stage), test, queries
        )
        > before + 0.03
    )


async def test_the_same_seed_gives_the_same_ranker(tmp_path: Path) -> None:
    names = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        over = await source()
        training_set = await collect(over, *annotated(60, 7, "val-"), RECIPE)
        names.append(train(folder, training_set, counted(over), OVER, RECIPE).name)

    assert names[0] == names[1]


async def test_without_validation_contents_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(UserError, match="validation"):
        await collect(await source(), [], np.zeros((0, D), np.float32), RECIPE)


class Kept:
    """A corpus of three contents."""

    def tags(self) -> list[Tag]:
        return [Tag(id="tea", name="tea"), Tag(id="law", name="law")]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        return iter([Exemplar(id=f"{split}{n}", title=f"Tea and law {n}", accepted=("tea",)) for n in range(3)])


@pytest.mark.parametrize(("recall", "kept"), [(RecallSettings(), 3), (RecallSettings(c2c2t=False), 0)])
async def test_contents_that_are_never_searched_are_not_encoded(
    recall: RecallSettings, kept: int, tmp_path: Path
) -> None:
    """With C2C2T off memory holds tags alone, and the embeddings that others left in the cache stay."""
    settings = Settings(recall=recall)
    async with assemble.in_process(settings, tmp_path) as stack:
        await remember(stack, Kept(), settings, tmp_path, 5)
        assert await stack.memory.exemplars.count() == kept
        assert await stack.memory.tags.count() == 2
    assert (tmp_path / SHIPPED.name).exists() == recall.c2c2t
