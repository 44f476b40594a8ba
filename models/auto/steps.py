"""The trainings of a run, each with the parts that were trained before it. What is finished is not done again."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tagbus.models.auto.choice import FOLDS, WHOLE_CPU_EPOCHS, Choice
from tagbus.models.auto.corpus import FOLDER
from tagbus.models.auto.selection import PARTS, Trained
from tagbus.models.evaluate.recipe import LARGE, TABLES, Step, top_layers
from tagbus.models.export.bert import WEIGHTS
from tagbus.models.export.encoder import export
from tagbus.models.rank import out_of_fold, ranker
from tagbus.models.rank.candidates import Recipe
from tagbus.models.rank.out_of_fold import HEADS_RECIPES, HeadsRun, RunConfig, Size
from tagbus.models.train import labeltree
from tagbus.models.train.whole import command as whole
from tagbus.stream.acceptance.twin import twin
from tagbus.stream.app.data.jsonl_folder import JsonlFolder
from tagbus.stream.encoder.release import RELEASE, default_folder
from tagbus.stream.rank import trees
from tagbus.stream.recall import labeltree as forest
from tagbus.stream.recall import tagvectors
from tagbus.stream.recall.component import variable
from tagbus.stream.recall.heads.model import MANIFEST

ENCODER: Final = "encoder"
# Of the encoder that is trained whole: as many layers as the packaged one has.
LAYERS: Final = 6
# Most trees of each kind of a ranker.
TREES: Final = 100
# The ranker that learns from what was selected by, too.
REFIT: Final = "refit"
# What a training leaves beside what a worker reads.
LEFT: Final = ("*.pt", "*.npy", "*.part", "*.jsonl", "plan.json")


def steps(choice: Choice, name: str, work: Path) -> Iterator[Step]:
    """The trainings that were chosen, for a release of that name, in the folder of the run."""
    corpus, cache, encoder = str(work / FOLDER), work / "cache", work / ENCODER / name
    settings = {"TAGBUS_ENCODER__FOLDER": str(encoder), "TAGBUS_COMPONENTS__LITERAL__ENABLED": "true"}

    def on(part: str) -> None:
        settings[variable(part, "folder")] = str(work / part)

    if choice.has("whole"):
        yield Step(work / "tagvectors" / tagvectors.FILE, partial(_whole, corpus, work, name, choice))
        on("tagvectors")
    else:
        yield Step(encoder / RELEASE, partial(_renamed, work / ENCODER, name))
    if choice.ranked == "folds":
        heads, ranked = work / "heads", work / "ranker"
        kept = partial(out_of_fold.command, corpus, heads, ranked, cache=cache, keep=work / "folds")
        run = partial(kept, folds=FOLDS, trees=TREES, table=TABLES)
        yield Step(ranked / trees.MANIFEST, run, settings)
        return
    if choice.has("heads"):
        heads = work / "heads"
        recipe = HEADS_RECIPES[Size.LARGE if choice.contents >= LARGE else Size.SMALL]
        train = partial(recipe.heads, corpus, heads, HeadsRun(heads, cache), RunConfig(3, 0, Recipe()))
        yield Step(heads / MANIFEST, train, settings)
        on("heads")
    if choice.has("labeltree"):
        bonsai = work / "labeltree"
        yield Step(bonsai / forest.MANIFEST, partial(labeltree.command, corpus, bonsai), settings)
        on("labeltree")
    if choice.has("second_encoder"):
        top, second = work / "top-layers", work / "second_encoder"
        yield Step(top / WEIGHTS, partial(top_layers, corpus, top), settings)
        yield Step(second / RELEASE, partial(export, second, "float16", f"{name[:90]}-second", top), settings)
        on("second_encoder")
    if choice.ranked == "validation":
        ranked = work / "ranker"
        run = partial(ranker.command, corpus, ranked, cache, trees=TREES, table=TABLES)
        yield Step(ranked / trees.MANIFEST, run, settings)


def last_steps(choice: Choice, name: str, work: Path) -> Iterator[Step]:
    """What is trained once the parts are selected: a ranker of folds learns from the validation contents too."""
    if choice.ranked != "folds" or not any(JsonlFolder(work / FOLDER).exemplars("val")):
        return
    settings = {"TAGBUS_ENCODER__FOLDER": str(work / ENCODER / name), "TAGBUS_COMPONENTS__LITERAL__ENABLED": "true"}
    recipe, heads = Recipe(trees=TREES, tables=tuple(TABLES)), HeadsRun(work / "heads", work / "cache")
    run = partial(out_of_fold.refit, str(work / FOLDER), heads, work / "folds", work / REFIT, recipe)
    yield Step(work / REFIT / trees.MANIFEST, run, settings)


def trained(work: Path, name: str) -> Trained:
    """What the steps have made."""
    parts = {part: work / part for part in PARTS if (work / part).exists()}
    if (work / REFIT / trees.MANIFEST).exists():
        parts[trees.NAME] = work / REFIT
    return Trained(work / ENCODER / name, parts, work / "cache")


def gather(found: Trained, parts: tuple[str, ...], to: Path) -> None:
    """Copy encoder and parts as a worker reads them; checkpoints and logs stay where they are."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(found.encoder, to, ignore=shutil.ignore_patterns(*LEFT, tagvectors.FILE))
    for name in parts:
        shutil.copytree(found.parts[name], to / name, ignore=shutil.ignore_patterns(*LEFT))


def _renamed(place: Path, name: str) -> None:
    """The packaged encoder as a release of that name."""
    shutil.rmtree(place / name, ignore_errors=True)
    twin(default_folder(), place, name)


def _whole(corpus: str, work: Path, name: str, choice: Choice) -> None:
    """Train an encoder whole; its tag vectors are a part of their own."""
    to, encoder = work / "whole", work / ENCODER / name
    if choice.gpu:
        whole.command(corpus, to, layers=str(LAYERS))
    else:
        whole.command(corpus, to, layers=str(LAYERS), epochs=WHOLE_CPU_EPOCHS, evaluations=WHOLE_CPU_EPOCHS)
    export(encoder, "float16", name, to / f"layers-{LAYERS}")
    made = work / "tagvectors" / tagvectors.FILE
    made.parent.mkdir(exist_ok=True)
    part = made.with_suffix(".part")
    shutil.copyfile(encoder / tagvectors.FILE, part)
    part.replace(made)
