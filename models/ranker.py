"""`tagbus train ranker`: trees that put the candidates of all recallers into one order.

    tagbus train ranker CORPUS --out FOLDER

LambdaMART (Burges 2010, MSR-TR-2010-82) and a binary classifier, averaged: the one orders a content's candidates, the
other says how probable each is. They are trained on contents that neither memory nor heads hold. A part of the tags is
treated as new there, so that the trees learn to judge a tag by its name and its first exemplars alone.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import lightgbm
import numpy as np
import typer

from tagbus.models.candidates import Candidates, Lesson, Recipe, Scores, Source, both, chance, count, learn
from tagbus.models.data import Corpus, open_corpus, text_of
from tagbus.models.trees import to_onnx
from tagbus.stream import calibrate, quality, rank
from tagbus.stream.cli import build, out
from tagbus.stream.config import Settings, load
from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import UserError
from tagbus.stream.rank import Manifest
from tagbus.stream.recall.features import columns
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.pool import NAMES, Flags, Floats, Ints, Numbers
from tagbus.stream.tagger import Pipeline

# Steps at which the number of trees is tried.
STEP: Final = 50
# Exponents of the propensity that are tried.
EXPONENTS: Final = tuple(np.arange(0, 0.51, 0.05).round(2).tolist())
FIRST: Final = 10
DEFAULT: Final = Recipe()


@dataclass(frozen=True, slots=True)
class Trained:
    """Both models and the spread of their scores, by which they are averaged."""

    order: lightgbm.Booster
    chance: lightgbm.Booster

    def scores(self, features: Floats, steps: Sequence[int]) -> Iterator[tuple[Scores, Scores]]:
        """The raw scores of both after so many trees."""
        sums = [np.zeros(len(features)), np.zeros(len(features))]
        before = 0
        for step in steps:
            for place, model in enumerate((self.order, self.chance)):
                sums[place] = sums[place] + np.asarray(
                    model.predict(features, raw_score=True, start_iteration=before, num_iteration=step - before)
                )
            before = step
            yield sums[0], sums[1]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the halves chose: the number of trees, the exponent, each model's weight; and the scores that led to it."""

    trees: int
    propensity: float
    weights: tuple[float, float]
    scores: Scores


def command(
    corpus: Annotated[str, typer.Argument(help="folder with train, val and test contents, or `topics`")],
    to: Annotated[Path, typer.Option("--out", help="folder of the ranker; ranker.json, ranker.onnx, tables.npz")],
    cache: Annotated[Path | None, typer.Option("--cache", help="folder that keeps embeddings")] = None,
    trees: Annotated[int, typer.Option(min=STEP, max=5000, help="of each kind at most")] = DEFAULT.trees,
    leaves: Annotated[int, typer.Option(min=2, max=1024, help="of a tree")] = DEFAULT.leaves,
    new_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="share of the tags treated as new")
    ] = DEFAULT.new_share,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=0, help="of LightGBM; 0: all cores")] = 1,
) -> None:
    """Train the ranker of the recallers that the settings switch on, on the validation contents of CORPUS.

    Writes a calibration for its scores beside it, and a line of metrics for each step to metrics.jsonl.
    """
    recipe = Recipe(trees=trees, leaves=leaves, new_share=new_share, seed=seed, threads=threads)
    asyncio.run(_command(open_corpus(corpus), to, cache, recipe))


async def _command(corpus: Corpus, to: Path, cache: Path | None, recipe: Recipe) -> None:
    settings = _unranked(load())
    to.mkdir(parents=True, exist_ok=True)
    memory = await build.cached_memory(cache, settings)
    async with build.brain(settings, memory) as brain:
        held = list(corpus.exemplars("val"))
        numbers = Numbers([tag.id for tag in corpus.tags()])
        tables = count(numbers, (item for item in corpus.exemplars("train")), recipe.fewest_together)
        with out.bar("encoding memory", len(numbers) + tables.contents) as bar:
            await build.fill(brain.projection(), corpus.tags(), corpus.exemplars("train"), bar.advance)
        if cache is not None:
            await build.save_memory(cache, memory)
        graph = GraphRecall(memory.tags, memory.exemplars, brain.release.recall, settings.recall)
        others = brain.learnt.others(settings, memory.tags, dict)
        source = Source(graph, others, numbers, tables)
        vectors = await brain.encoder.encode([text_of(item) for item in held])
        lesson = await learn(source, held, vectors, recipe)
        over = Over(brain.release.name, brain.pipeline.heads, (NAMES, *(other.name for other in others)))
        manifest = train(to, lesson, source, over, recipe)
    out.say(f"{manifest.name} for release {manifest.release}: {manifest.trees} trees, {to}")


def _unranked(settings: Settings) -> Settings:
    """What there is before there is a ranker."""
    return settings.model_copy(update={"rank": settings.rank.model_copy(update={"folder": None})})


def fit(found: Candidates, recipe: Recipe, trees: int) -> Trained:
    """Both models on these candidates."""
    size = np.bincount(found.rows)
    common = {
        "num_leaves": recipe.leaves,
        "learning_rate": recipe.rate,
        "min_data_in_leaf": 50,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": recipe.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": recipe.threads,
        "verbose": -1,
    }
    right = found.right.astype(np.int64)
    order = lightgbm.train(
        {**common, "objective": "lambdarank", "lambdarank_truncation_level": 10},
        lightgbm.Dataset(found.features, right, group=size[size > 0]),
        trees,
    )
    chance = lightgbm.train({**common, "objective": "binary"}, lightgbm.Dataset(found.features, right), trees)
    return Trained(order, chance)


def choose(lesson: Lesson, recipe: Recipe, log: "Log") -> Choice:
    """Train on each half of the contents, score the other as the tagger sees it, take what is best over both."""
    plain, masked = lesson.plain, lesson.masked
    steps = range(STEP, recipe.trees + 1, STEP)
    scores = {step: np.zeros((2, len(plain.rows))) for step in steps}
    for half in (False, True):
        others = _half(plain.rows, recipe.seed) != half
        lesson_half = both(plain.where(~others), masked.where(_half(masked.rows, recipe.seed) == half))
        out.say(f"training on half of the contents: {len(lesson_half.rows)} candidates")
        trained = fit(lesson_half, recipe, recipe.trees)
        for step, pair in zip(steps, trained.scores(plain.features[others], steps), strict=True):
            scores[step][:, others] = pair
    best: tuple[float, Choice] | None = None
    for step in steps:
        order, chance = 0.5 / scores[step].std(axis=1)
        mixed = order * scores[step][0] + chance * scores[step][1]
        for exponent in EXPONENTS:
            total = mixed + exponent * plain.rare
            figures = measure(lesson, total)
            log.write(
                trees=step, propensity=exponent, **{k: round(v, 3) for k, v in asdict(figures).items() if k != "ece"}
            )
            goal = figures.ndcg_at_5 + figures.psp_at_5
            if best is None or goal > best[0]:
                best = goal, Choice(step, exponent, (float(order), float(chance)), total)
    if best is None:
        raise UserError(f"trees: {recipe.trees}, expected at least {STEP}")
    return best[1]


def _half(rows: Ints, seed: int) -> Flags:
    """To which half of the contents a row belongs."""
    return chance(rows, np.zeros_like(rows), seed) < 0.5


def measure(lesson: Lesson, scores: Scores) -> quality.Quality:
    """How good the plain candidates are in this order."""
    chosen, place = best_of(lesson.plain, scores)
    ranked = np.full((len(lesson.truth), FIRST), -1, np.int64)
    ranked[lesson.plain.rows[chosen], place] = lesson.plain.tags[chosen]
    return quality.measure(quality.Ranked(ranked, np.zeros(ranked.shape)), lesson.truth, lesson.propensity)


def best_of(found: Candidates, scores: Scores) -> tuple[Ints, Ints]:
    """Which candidates are among the ten best of their content, and at which place from 0."""
    order = np.lexsort((-scores, found.rows))
    rows = found.rows[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return order[place < FIRST], place[place < FIRST]


@dataclass(frozen=True, slots=True)
class Log:
    """A line of JSON for each step."""

    path: Path
    started: float

    def write(self, **figures: float | str) -> None:
        """One more line, with the seconds since the start."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seconds": round(time.monotonic() - self.started, 1), **figures}) + "\n")


@dataclass(frozen=True, slots=True)
class Over:
    """What a ranker is trained over, as the tagger will check it."""

    release: str
    heads: str | None
    lists: tuple[str, ...]


def train(to: Path, lesson: Lesson, source: Source, over: Over, recipe: Recipe) -> Manifest:
    """Train on the lesson and write ranker.json, ranker.onnx, tables.npz, calibration.json and metrics.jsonl."""
    log = Log(to / "metrics.jsonl", time.monotonic())
    choice = choose(lesson, recipe, log)
    out.say(f"training on all contents: {choice.trees} trees of each kind, propensity exponent {choice.propensity}")
    trained = fit(both(lesson.plain, lesson.masked), recipe, choice.trees)
    names = columns(over.lists)
    model = to_onnx([(trained.order, choice.weights[0]), (trained.chance, choice.weights[1])], len(names))
    known = source.numbers.ids[: len(source.tables.counts)]
    tables = rank.pack(source.tables, known)
    manifest = Manifest(
        name=f"ranker-{sha256(model + tables)[:8]}",
        release=over.release,
        heads=over.heads,
        lists=over.lists,
        columns=names,
        names=recipe.names,
        neighbours=recipe.neighbours,
        listed=recipe.listed,
        voted=recipe.voted,
        kept=recipe.kept,
        propensity=choice.propensity,
        model_sha256=sha256(model),
        tables_sha256=sha256(tables),
        fitted_on=len(lesson.truth),
        trees=2 * choice.trees,
    )
    (to / rank.MODEL).write_bytes(model)
    (to / rank.TABLES).write_bytes(tables)
    (to / rank.MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    chosen, _ = best_of(lesson.plain, choice.scores)
    pipeline = Pipeline(over.release, "literal" in over.lists, over.heads, manifest.name)
    calibration = calibrate.fit(choice.scores[chosen], lesson.plain.right[chosen], pipeline.name, len(lesson.truth))
    calibration.save(to / rank.CALIBRATION)
    log.write(name=manifest.name, trees=choice.trees, propensity=choice.propensity)
    return manifest
