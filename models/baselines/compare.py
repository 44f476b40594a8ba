"""Trains a baseline on the training contents and stores its predictions for the others.

    .cache/baselines/bin/python -m tagbus.models.baselines bonsai ../shared/data/yso-titles --out .cache/models

The baselines are in the extra `baselines`, which needs a separate environment (`make baselines`): Annif pins other
versions of numpy and click. Predictions go to OUT/NAME, where `tagbus evaluate-models` reads them: `val.npz` and
`test.npz` (tag numbers and scores of the 60 best), `run.json` (cost).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from tagbus.models.baselines.annif import AnnifOmikuji
from tagbus.models.baselines.base import BEST, Baseline, Titles
from tagbus.models.baselines.tfidf import Neighbours
from tagbus.models.baselines.trees import Omikuji, XrLinear
from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.data.splits import Split
from tagbus.models.data.texts import text_of
from tagbus.models.data.truth import Truth, numbers_of
from tagbus.stream.app import console
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError, shorten

RUN: Final = "run.json"

# Each is created with the output folder, where a baseline may keep its model. Bonsai's trees are wide and shallow;
# Parabel's, Omikuji's default, are balanced and binary.
BASELINES: Final[Mapping[str, Callable[[Path], Baseline]]] = {
    "parabel": lambda _: Omikuji(),
    "bonsai": lambda _: Omikuji(cluster_balanced=False, cluster_k=100, max_depth=3),
    "xr-linear": lambda _: XrLinear(),
    "tfidf-neighbours": lambda _: Neighbours(),
    "annif-bonsai": lambda folder: AnnifOmikuji(folder / "project"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """The cost of a baseline: CPU seconds of training, and contents per CPU second at prediction."""

    name: str
    train_seconds: float
    contents_per_second: float
    command: str


def command(
    name: Annotated[str, typer.Argument(help=", ".join(BASELINES))],
    corpus: Annotated[str, typer.Argument(help="folder with train, val and test contents")],
    to: Annotated[Path, typer.Option("--out", help="parent of the output folder, which has the baseline's name")],
) -> None:
    """Train a baseline on the training contents and store its predictions for the others."""
    if name not in BASELINES:
        raise UserError(f"{shorten(name)} is not a baseline, expected {', '.join(BASELINES)}")
    line = f"python -m tagbus.models.baselines {name} {corpus} --out {to}"
    run = compare(name, open_corpus(corpus), to / name, line)
    console.print_line(json.dumps(asdict(run)))


def compare(name: str, corpus: Corpus, to: Path, line: str) -> Run:
    """Train, predict and write. Times are CPU times, because machines are shared."""
    numbers = {tag.id: number for number, tag in enumerate(corpus.tags())}
    train = list(corpus.exemplars("train"))
    baseline = BASELINES[name](to)
    started = time.process_time()
    baseline.train(Titles([text_of(item) for item in train], _truth(train, numbers), len(numbers)))
    trained = time.process_time() - started
    console.say(f"{name}: trained in {trained:.0f} CPU seconds")
    to.mkdir(parents=True, exist_ok=True)
    rate = 0.0
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        texts = [text_of(item) for item in corpus.exemplars(split)]
        started = time.process_time()
        indices, scores = baseline.predict(texts, BEST)
        rate = len(texts) / (time.process_time() - started)
        np.savez_compressed(to / f"{split}.npz", indices=indices.astype(np.int32), scores=scores.astype(np.float32))
    run = Run(name, round(trained, 1), round(rate, 1), line)
    (to / RUN).write_text(json.dumps(asdict(run), indent=2) + "\n", encoding="utf-8")
    return run


def _truth(items: Sequence[Exemplar], numbers: Mapping[str, int]) -> Truth:
    return Truth.of(numbers_of(item, numbers) for item in items)
