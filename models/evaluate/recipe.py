"""What is trained for the rows untrained, light and full, in the order of docs/training.md: a step a component.

A step whose file is there is done; an interrupted one goes on where its training stopped.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from tagbus.models.evaluate.rows import EIGHT, FULL, LIGHT
from tagbus.models.evaluate.systems import environment, filled
from tagbus.models.export.bert import WEIGHTS
from tagbus.models.export.encoder import export
from tagbus.models.rank import ranker
from tagbus.models.rank.candidates import Recipe
from tagbus.models.rank.out_of_fold import HEADS_RECIPES, HeadsRun, RunConfig, Size
from tagbus.models.train import biencoder, labeltree
from tagbus.stream.app import console
from tagbus.stream.encoder.release import RELEASE
from tagbus.stream.rank import trees
from tagbus.stream.rank.features.tables import TableName
from tagbus.stream.recall import labeltree as forest
from tagbus.stream.recall.heads.model import MANIFEST

# From so many training contents on heads are trained as for a large corpus.
LARGE: Final = 100_000
TABLES: Final = [TableName.NAMED, TableName.TERMS]
UNTRAINED, LIGHTER, WHOLE = "untrained", "light", "full"
# The release of the trained encoder.
TRAINED: Final = "quality-top-f16-1"
ROWS: Final = (UNTRAINED, LIGHTER, WHOLE)


@dataclass(frozen=True, slots=True)
class Place:
    """The corpus, how many training contents it has, and the folder of its models."""

    corpus: str
    contents: int
    models: Path

    @property
    def cache(self) -> Path:
        """The folder of embeddings. Two trainings of an encoder have one name, so it lies beside the models."""
        return self.models / "cache"


@dataclass(frozen=True, slots=True)
class Step:
    """A training: the file that it ends with, the settings that it runs with, and what it calls."""

    made: Path
    run: Callable[[], object]
    settings: Mapping[str, str] = field(default_factory=dict)


def prepare(row: str, place: Place) -> None:
    """Train what the row needs and is not there. Raises UserError as the trainings do."""
    for step in steps(row, place):
        if step.made.exists():
            continue
        console.say(f"{row}: {step.made.parent}")
        with environment(filled(step.settings, place.models)):
            step.run()


def steps(row: str, place: Place) -> Iterator[Step]:
    """The trainings of a row, in order."""
    models = place.models
    if row == LIGHTER:
        yield Step(models / "int8/encoder" / RELEASE, partial(export, models / "int8/encoder", "int8"))
        yield _heads(place, models / "int8/heads", EIGHT)
        yield _ranker(place, models / "int8/light", LIGHT, seeds=1)
    elif row == WHOLE:
        yield _heads(place, models / "heads", {})
        bonsai, top = models / "labeltree", models / "top-layers"
        yield Step(bonsai / forest.MANIFEST, partial(labeltree.command, place.corpus, bonsai))
        yield Step(top / WEIGHTS, partial(biencoder.command, place.corpus, top, "top-layers"))
        yield Step(models / "encoder" / RELEASE, partial(export, models / "encoder", "float16", TRAINED, top))
        yield _ranker(place, models / "full", FULL, seeds=Recipe().seeds)


def _heads(place: Place, to: Path, settings: Mapping[str, str]) -> Step:
    recipe = HEADS_RECIPES[Size.LARGE if place.contents >= LARGE else Size.SMALL]
    run = partial(recipe.heads, place.corpus, to, HeadsRun(to, place.cache), RunConfig(3, 0, Recipe()))
    return Step(to / MANIFEST, run, settings)


def _ranker(place: Place, to: Path, settings: Mapping[str, str], seeds: int) -> Step:
    run = partial(ranker.command, place.corpus, to, place.cache, seeds=seeds, table=TABLES)
    return Step(to / trees.MANIFEST, run, settings)
