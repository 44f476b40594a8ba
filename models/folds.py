"""Heads and ranker for a corpus that is too small to hold much of it out: the ranker learns out of fold.

    python -m tagbus.models.folds CORPUS --heads FOLDER --ranker FOLDER

The training contents are cut into folds. For each one heads are trained on the others, memory holds the others, and the
ranker learns from what these give for the fold (stacking, Wolpert 1992, Neural Networks 5). The heads that are written
are trained on all of them.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from tagbus.models import heads
from tagbus.models.candidates import Candidates, Lesson, Recipe, Source, count, learn
from tagbus.models.data import open_corpus, text_of
from tagbus.models.ranker import Over, train
from tagbus.stream import rank
from tagbus.stream.cli import build
from tagbus.stream.config import HeadsSettings, RankSettings, Settings, load
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Event, Exemplar, Tag
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.heads import read_manifest
from tagbus.stream.recall.pool import NAMES, Numbers

LISTS = (NAMES, "literal", "heads")
# No bigram stands in so many contents.
NONE = 1_000_000


def command(
    corpus: Annotated[str, typer.Argument(help="folder with train and val contents")],
    heads_to: Annotated[Path, typer.Option("--heads", help="folder of the heads")],
    ranker_to: Annotated[Path, typer.Option("--ranker", help="folder of the ranker and its calibration")],
    folds: Annotated[int, typer.Option(min=2, max=20)] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="of the heads")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="contents a step of the heads")] = 128,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train heads on the train contents of CORPUS, and a ranker on the same contents out of fold."""
    opened = open_corpus(corpus)
    tags, items = opened.tags(), list(opened.exemplars("train"))
    recipe, drill = Recipe(seed=seed), Drill(epochs, batch, seed)
    with TemporaryDirectory() as spare:
        place = Path(spare)
        drill.heads(corpus, heads_to, place / "run", place / "cache")
        learnt = []
        for number in range(folds):
            folder = place / f"fold-{number}"
            held = [item for item in items if _fold(item, folds) == number]
            _write(folder, tags, [item for item in items if _fold(item, folds) != number], held)
            # Of its own: what a fold leaves out is left out of its cache too.
            shutil.copytree(place / "cache", folder / "cache")
            drill.heads(str(folder), folder / "heads", folder / "heads", folder / "cache")
            learnt.append(asyncio.run(_learn(folder, recipe)))
        _, over, source = learnt[-1]
        source = replace(source, tables=count(source.numbers, iter(items), recipe.fewest_together))
        over = replace(over, heads=read_manifest(heads_to).name)
        draft = place / "ranker"
        draft.mkdir()
        train(draft, join([lesson for lesson, _, _ in learnt]), source, over, recipe)
        ranker_to.mkdir(parents=True, exist_ok=True)
        for name in (rank.MODEL, rank.TABLES, rank.CALIBRATION, rank.MANIFEST):
            shutil.copyfile(draft / name, ranker_to / name)


@dataclass(frozen=True, slots=True)
class Drill:
    """How all heads are trained here."""

    epochs: int
    batch: int
    seed: int

    def heads(self, corpus: str, to: Path, run: Path, cache: Path) -> None:
        """Train heads on a folder's train contents; checkpoint and metrics go to `run`."""
        heads.command(
            corpus,
            to,
            run=run,
            cache=cache,
            epochs=self.epochs,
            batch=self.batch,
            seed=self.seed,
            # On the 391 held-out contents of the example data: R@10 56.3, and 53.0 with heads.Recipe's own.
            words=3,
            bigrams=NONE,
            named=2,
            rate=3e-3,
        )


def _fold(item: Exemplar, folds: int) -> int:
    """By its id alone: it stays there when others come."""
    return int.from_bytes(hashlib.blake2b(item.id.encode(), digest_size=8).digest()) % folds


def _write(folder: Path, tags: Sequence[Tag], train: Sequence[Exemplar], held: Sequence[Exemplar]) -> None:
    """A corpus of JSON lines."""
    folder.mkdir()
    named: dict[str, Iterable[Event]] = {"tags": tags, "exemplars": train, "calibration": held}
    for name, events in named.items():
        (folder / f"{name}.jsonl").write_bytes(b"".join(encode(event) + b"\n" for event in events))


async def _learn(folder: Path, recipe: Recipe) -> tuple[Lesson, Over, Source]:
    """What the ranker learns from a fold."""
    corpus, settings = open_corpus(str(folder)), _settings(folder / "heads")
    memory = await build.cached_memory(folder / "cache", settings)
    async with build.brain(settings, memory) as brain:
        numbers = Numbers([tag.id for tag in corpus.tags()])
        held, tables = (
            list(corpus.exemplars("val")),
            count(numbers, corpus.exemplars("train"), recipe.fewest_together),
        )
        await build.fill(brain.projection(), corpus.tags(), corpus.exemplars("train"), lambda _: None)
        graph = GraphRecall(memory.tags, memory.exemplars, brain.release.recall, settings.recall)
        others = brain.learnt.others(settings, memory.tags, dict)
        source = Source(graph, others, numbers, tables)
        lesson = await learn(source, held, await brain.encoder.encode([text_of(item) for item in held]), recipe)
        return lesson, Over(brain.release.name, brain.pipeline.heads, LISTS), source


def _settings(folder: Path) -> Settings:
    """The caller's settings with these heads and literal names, before there is a ranker."""
    given = load()
    return given.model_copy(
        update={
            "heads": HeadsSettings(folder=folder),
            "rank": RankSettings(),
            "recall": given.recall.model_copy(update={"literal": True}),
        }
    )


def join(lessons: Sequence[Lesson]) -> Lesson:
    """The lessons as one: the contents of a later one come after those of an earlier one."""
    starts = np.cumsum([0, *(len(one.truth) for one in lessons[:-1])]).tolist()
    plain, masked = (
        _joined([replace(part, rows=part.rows + start) for part, start in zip(parts, starts, strict=True)])
        for parts in ([one.plain for one in lessons], [one.masked for one in lessons])
    )
    truth = [tags for one in lessons for tags in one.truth]
    return Lesson(plain, masked, truth, np.mean([one.propensity for one in lessons], axis=0))


def _joined(parts: Sequence[Candidates]) -> Candidates:
    return Candidates(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Candidates)))


if __name__ == "__main__":
    typer.run(command)
