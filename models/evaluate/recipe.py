"""The trainings for the rows untrained, light and full, in the order of docs/training.md: one step per component.

A step whose file exists is done; an interrupted one resumes where its training stopped.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from tagbus.models.train import labeltree
from tagbus.stream.app import console
from tagbus.stream.encoder.release import RELEASE
from tagbus.stream.rank import trees
from tagbus.stream.rank.features.tables import TableName
from tagbus.stream.recall import labeltree as forest
from tagbus.stream.recall.heads.model import MANIFEST

# With this many training contents or more, heads are trained as for a large corpus.
LARGE: Final = 100_000
TABLES: Final = [TableName.NAMED, TableName.TERMS]
UNTRAINED, LIGHTER, WHOLE = "untrained", "light", "full"
# The release of the trained encoder.
TRAINED: Final = "quality-top-f16-1"
ROWS: Final = (UNTRAINED, LIGHTER, WHOLE)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A corpus, its number of training contents, and the folder of its models."""

    corpus: str
    contents: int
    models: Path

    @property
    def cache(self) -> Path:
        """The folder of embeddings. It is beside the models because two trainings of an encoder share a name."""
        return self.models / "cache"


@dataclass(frozen=True, slots=True)
class Step:
    """A training: its final file, its settings, and its function."""

    made: Path
    run: Callable[[], object]
    settings: Mapping[str, str] = field(default_factory=dict)


def prepare(row: str, experiment: Experiment) -> None:
    """Train the row's missing models. Raises UserError as the trainings do."""
    take(steps(row, experiment), experiment.models)


def take(some: Iterable[Step], models: Path) -> None:
    """Run the steps that are not done, in order. Raises UserError as the trainings do."""
    for step in some:
        if not step.made.exists():
            console.say(f"training: {step.made.parent}")
            with environment(filled(step.settings, models)):
                step.run()


def steps(row: str, experiment: Experiment) -> Iterator[Step]:
    """The trainings of a row, in order."""
    models = experiment.models
    if row == LIGHTER:
        yield Step(models / "int8/encoder" / RELEASE, partial(export, models / "int8/encoder", "int8"))
        yield _heads(experiment, models / "int8/heads", EIGHT)
        yield _ranker(experiment, models / "int8/light", LIGHT, seeds=1)
    elif row == WHOLE:
        yield _heads(experiment, models / "heads", {})
        bonsai, top = models / "labeltree", models / "top-layers"
        yield Step(bonsai / forest.MANIFEST, partial(labeltree.command, experiment.corpus, bonsai))
        yield Step(top / WEIGHTS, partial(top_layers, experiment.corpus, top))
        yield Step(models / "encoder" / RELEASE, partial(export, models / "encoder", "float16", TRAINED, top))
        yield _ranker(experiment, models / "full", FULL, seeds=Recipe().seeds)


def top_layers(corpus: str, to: Path) -> None:
    """Train the top layers of an encoder.

    Imported where it is needed: its libraries take seconds, and leave a page about leaks at the end of the process.
    """
    from tagbus.models.train import biencoder

    biencoder.command(corpus, to, "top-layers")


def _heads(experiment: Experiment, to: Path, settings: Mapping[str, str]) -> Step:
    recipe = HEADS_RECIPES[Size.LARGE if experiment.contents >= LARGE else Size.SMALL]
    run = partial(recipe.heads, experiment.corpus, to, HeadsRun(to, experiment.cache), RunConfig(3, 0, Recipe()))
    return Step(to / MANIFEST, run, settings)


def _ranker(experiment: Experiment, to: Path, settings: Mapping[str, str], seeds: int) -> Step:
    run = partial(ranker.command, experiment.corpus, to, experiment.cache, seeds=seeds, table=TABLES)
    return Step(to / trees.MANIFEST, run, settings)
