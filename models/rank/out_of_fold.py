"""Heads and an out-of-fold ranker, which is trained on many more contents than could be held out.

    python -m tagbus.models.rank.out_of_fold CORPUS --heads FOLDER --ranker FOLDER

The training contents are split into folds. For each fold, heads are trained on the others, memory is filled with the
others, and the ranker is trained on the candidates that these give for the fold (stacking, Wolpert 1992, Neural
Networks 5). The heads that are written are trained on all folds. A large corpus needs one fold only (`--taken 1`).
"""

import asyncio
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import numpy as np
import typer
from pydantic import BaseModel, ConfigDict

from tagbus.models.data.corpus import Corpus, open_corpus, tagged, without
from tagbus.models.data.folder import write
from tagbus.models.data.texts import text_of
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.rank import kept as collected_sets
from tagbus.models.rank.candidates import Candidates, Recipe, Source, TrainingSet, collect
from tagbus.models.rank.ranker import Counted, over_of, train
from tagbus.models.rank.statistics import count
from tagbus.models.train import heads as training
from tagbus.models.train.plan import begin
from tagbus.stream.app import assemble, components, console, filling
from tagbus.stream.app.places.folders import base_release
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.rank import trees
from tagbus.stream.rank.features.tables import TableName
from tagbus.stream.rank.trees import Over
from tagbus.stream.recall import heads
from tagbus.stream.recall.heads.model import MANIFEST, read_manifest
from tagbus.stream.recall.lexical import literal
from tagbus.stream.recall.pool import NAMES, Numbers

LISTS: Final = (NAMES, "literal", "heads")
# No bigram is in so many contents, so none is used.
NONE: Final = 1_000_000
DEFAULT: Final = Recipe()


class Plan(BaseModel):
    """What a run that is kept is of: it goes on only with the same."""

    model_config = ConfigDict(frozen=True)

    corpus: str
    left_out: str | None
    release: str
    size: str
    folds: int
    taken: int
    epochs: int
    batch: int
    recipe: Recipe


class Size(StrEnum):
    """The size of the corpus."""

    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class HeadsRun:
    """Folders of checkpoint and embeddings of a training of heads, and the file of tags to leave out."""

    run: Path
    cache: Path
    left_out: Path | None = None


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Options of all trainings of a run: epochs and batch of the heads (0: the recipe's), and the ranker's recipe."""

    epochs: int
    batch: int
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class HeadsRecipe:
    """Hyperparameters of heads for a size of corpus; `val`: train the ranker on the validation contents too."""

    val: bool
    words: int
    bigrams: int
    named: int
    rate: float
    batch: int

    def heads(self, corpus: str, to: Path, place: HeadsRun, config: RunConfig) -> None:
        """Train heads on the training contents of a folder."""
        training.command(
            corpus,
            to,
            run=place.run,
            cache=place.cache,
            left_out=place.left_out,
            words=self.words,
            bigrams=self.bigrams,
            named=self.named,
            rate=self.rate,
            epochs=config.epochs,
            batch=config.batch or self.batch,
            seed=config.recipe.seed,
            threads=config.recipe.threads,
        )


HEADS_RECIPES: Final = {
    # R@10 56.3 on 391 held-out titles of YSO with 8,578 in training, 53.0 with the defaults of heads.Recipe.
    Size.SMALL: HeadsRecipe(val=False, words=3, bigrams=NONE, named=2, rate=3e-3, batch=128),
    # Names as contents cost 0.7 of P@1 on YSO's 5,083 validation titles.
    Size.LARGE: HeadsRecipe(val=True, words=2, bigrams=4, named=0, rate=1e-3, batch=512),
}


def command(
    corpus: Annotated[str, typer.Argument(help="folder with training and validation contents")],
    heads_to: Annotated[Path, typer.Option("--heads", help="folder of the heads")],
    ranker_to: Annotated[Path, typer.Option("--ranker", help="folder of the ranker and its calibration")],
    size: Annotated[Size, typer.Option(help="size of the corpus: about 10,000 contents, or from 100,000")] = (
        Size.SMALL
    ),
    folds: Annotated[int, typer.Option(min=2, max=20)] = 4,
    taken: Annotated[int, typer.Option(min=1, max=20, help="folds to train the ranker on")] = 20,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder to cache embeddings in")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="folder for folds and checkpoints; an interrupted run is resumed from it")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="epochs of the heads")] = 3,
    batch: Annotated[int, typer.Option(min=0, help="contents per step of the heads; 0: by size of the corpus")] = 0,
    trees: Annotated[
        int, typer.Option(min=50, max=5000, help="most trees of the ranker, of each kind")
    ] = DEFAULT.trees,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    table: Annotated[
        list[TableName] | None, typer.Option(help="named feature table that the ranker reads too; may be given again")
    ] = None,
) -> None:
    """Train heads on the training contents of CORPUS, and a ranker on the same contents out of fold."""
    config, heads_recipe = (
        RunConfig(
            epochs, batch, Recipe(trees=trees, seed=seed, threads=threads, tables=tuple(dict.fromkeys(table or ())))
        ),
        HEADS_RECIPES[size],
    )
    with TemporaryDirectory() as spare:
        place = keep or Path(spare)
        begin(place, _plan(corpus, left_out, size, folds, taken, config))
        # With --keep, checkpoint and metrics stay next to the models, where `tagbus evaluate-models` reads them.
        run, draft = (heads_to, ranker_to) if keep else (place / "run", place / "ranker")
        whole = HeadsRun(run, cache or place / "cache", left_out)
        _train_heads(corpus, heads_to, whole, heads_recipe, config)
        kept = without(open_corpus(corpus), left_out)
        log = Journal(draft / JOURNAL)
        folded = [Fold(kept, number, folds, heads_recipe.val and number == 0) for number in range(min(folds, taken))]
        collected = [_train_fold(fold, place, whole, heads_recipe, config) for fold in folded]
        _write_ranker(kept, collected, heads_to, draft, config.recipe)
        log.write({"folds": len(folded)})
        _copy(draft, ranker_to)


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold `number` of `folds` of a corpus, held out; with `val` the validation contents are held out with it."""

    corpus: Corpus
    number: int
    folds: int
    val: bool

    def write(self, folder: Path) -> None:
        """Write the fold as a corpus of JSON lines."""
        items = list(self.corpus.exemplars("train"))
        held = [item for item in items if fold_of(item, self.folds) == self.number]
        if self.val:
            held += self.corpus.exemplars("val")
        rest = [item for item in items if fold_of(item, self.folds) != self.number]
        write(folder, self.corpus.tags(), {"train": rest, "val": held})


def _plan(corpus: str, left_out: Path | None, size: Size, folds: int, taken: int, config: RunConfig) -> Plan:
    return Plan(
        corpus=corpus,
        left_out=None if left_out is None else str(left_out),
        release=base_release(load()).name,
        size=size.value,
        folds=folds,
        taken=taken,
        epochs=config.epochs,
        batch=config.batch,
        recipe=config.recipe,
    )


def _train_heads(corpus: str, to: Path, place: HeadsRun, heads_recipe: HeadsRecipe, config: RunConfig) -> None:
    """Train heads, unless an earlier run of this plan has: what it wrote is kept."""
    if place.run == to and (to / MANIFEST).exists():
        console.say(f"heads: {to} is trained")
        return
    heads_recipe.heads(corpus, to, place, config)


def _train_fold(
    fold: Fold, place: Path, whole: HeadsRun, heads_recipe: HeadsRecipe, config: RunConfig
) -> tuple[TrainingSet, Over]:
    """Train heads without a fold, and return the ranker's training set from the fold; both are kept with it."""
    folder = place / f"fold-{fold.number}"
    if (found := collected_sets.load(folder)) is not None:
        console.say(f"ranker: the candidates of {folder} are collected")
        return found
    if not folder.exists():
        part = place / f"fold-{fold.number}.part"
        shutil.rmtree(part, ignore_errors=True)
        fold.write(part)
        # A cache per fold: it must not hold embeddings of the fold.
        shutil.copytree(whole.cache, part / "cache")
        part.rename(folder)
    own = HeadsRun(folder / "heads", folder / "cache")
    _train_heads(str(folder), own.run, own, heads_recipe, config)
    collected = asyncio.run(_learn(open_corpus(str(folder)), own, config.recipe))
    collected_sets.save(folder, *collected)
    return collected


def _write_ranker(
    corpus: Corpus, collected: Sequence[tuple[TrainingSet, Over]], heads_of: Path, to: Path, recipe: Recipe
) -> None:
    _, over = collected[-1]
    numbers = Numbers([tag.id for tag in corpus.tags()])
    # A content may have tags that the taxonomy has not: they are numbered behind the known ones.
    counted = Counted(numbers.ids[: numbers.known], count(corpus, numbers, recipe, _settings(heads_of)))
    over = replace(over, components={**over.components, heads.NAME: read_manifest(heads_of).name})
    to.mkdir(parents=True, exist_ok=True)
    train(to, join([training_set for training_set, _ in collected]), counted, over, recipe)


def refit(corpus: str, heads_run: HeadsRun, keep: Path, to: Path, recipe: Recipe) -> None:
    """Train the ranker of a run that was kept again, on what its folds gave and on the validation contents too.

    For these the heads and the memory of all training contents are asked, as the tagger will ask them.
    """
    known = open_corpus(corpus)
    folds = [found for folder in sorted(keep.iterdir()) if (found := collected_sets.load(folder)) is not None]
    _write_ranker(known, [*folds, asyncio.run(_learn(known, heads_run, recipe))], heads_run.run, to, recipe)


def _copy(draft: Path, to: Path) -> None:
    if draft != to:
        to.mkdir(parents=True, exist_ok=True)
        for name in (trees.MODEL, trees.TABLES, trees.CALIBRATION, trees.MANIFEST):
            shutil.copyfile(draft / name, to / name)


def fold_of(item: Exemplar, folds: int) -> int:
    """The fold of a content, by its id alone: it does not change when contents are added."""
    return int.from_bytes(hashlib.blake2b(item.id.encode(), digest_size=8).digest()) % folds


async def _learn(corpus: Corpus, heads_run: HeadsRun, recipe: Recipe) -> tuple[TrainingSet, Over]:
    """The ranker's training set from the validation contents of a corpus, which heads and memory do not know."""
    settings = _settings(heads_run.run)
    async with assemble.in_process(settings, heads_run.cache) as stack:
        numbers = Numbers([tag.id for tag in corpus.tags()], stack.graph.numbers)
        held, statistics = list(tagged(corpus, "val")), count(corpus, numbers, recipe, settings)
        await filling.fill(
            stack.projection(), {"tags": corpus.tags(), "exemplars": corpus.exemplars("train")}, lambda _: None
        )
        source = Source(stack.graph, stack.recallers, numbers, statistics)
        training_set = await collect(source, held, await stack.encoder.encode([text_of(item) for item in held]), recipe)
        return training_set, over_of(stack)


def _settings(folder: Path) -> Settings:
    """The caller's settings with these heads and literal names, without ranker and cross-encoder."""
    on: dict[str, dict[str, object]] = {literal.NAME: {"enabled": True}, heads.NAME: {"folder": folder}}
    return components.switched(components.only(load(), literal.NAME), on)


def join(training_sets: Sequence[TrainingSet]) -> TrainingSet:
    """Concatenate training sets; contents are renumbered."""
    starts = np.cumsum([0, *(len(one.truth) for one in training_sets[:-1])]).tolist()
    plain, masked = (
        _joined([replace(part, rows=part.rows + start) for part, start in zip(parts, starts, strict=True)])
        for parts in ([one.plain for one in training_sets], [one.masked for one in training_sets])
    )
    truth = [tags for one in training_sets for tags in one.truth]
    return TrainingSet(plain, masked, truth, np.mean([one.propensity for one in training_sets], axis=0))


def _joined(parts: Sequence[Candidates]) -> Candidates:
    return Candidates(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Candidates)))


if __name__ == "__main__":
    typer.run(command)
