"""The training set of the ranker's second stage: the first stage's, with a cross-encoder's scores as a feature.

The cross-encoder scores the best candidates of each content. They are chosen by cross-validated scores, because in the
tagger the trees have not seen the content either. The cross-encoder must not have been trained on these contents.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tagbus.models.rank.candidates import Candidates, Scores, TrainingSet
from tagbus.stream.app import console
from tagbus.stream.rank.candidates import best
from tagbus.stream.rank.cross_encoder.model import OnnxCrossEncoder
from tagbus.stream.rank.cross_encoder.pairs import Wording
from tagbus.stream.rank.trees import crossed
from tagbus.stream.recall.pool import Floats, Ints

# Pairs per step of the progress bar.
CHUNK: Final = 1024


@dataclass(frozen=True, slots=True)
class CrossScoring:
    """A cross-encoder, and the texts of the contents by row and of the tags by number."""

    cross_encoder: OnnxCrossEncoder
    wording: Wording


def add_cross_scores(
    training_set: TrainingSet, orders: tuple[Scores, Scores], scoring: CrossScoring, top: int
) -> TrainingSet:
    """The training set with the feature `cross` for the `top` best candidates of each content.

    `orders`: the first stage's scores of the plain and of the masked candidates, float64 [m] each.
    """
    parts = (training_set.plain, training_set.masked)
    best_rows = [best(part.rows, part.tags, order, top) for part, order in zip(parts, orders, strict=True)]
    width = len(scoring.wording.ids)
    keys = [part.rows[some] * width + part.tags[some] for part, some in zip(parts, best_rows, strict=True)]
    # Most pairs are in both sets: score each once.
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    found = _read(scoring, pairs // width, pairs % width)[place]
    plain, masked = (
        _with(part, some, scores)
        for part, some, scores in zip(parts, best_rows, np.split(found, [len(keys[0])]), strict=True)
    )
    return replace(training_set, plain=plain, masked=masked)


def _with(part: Candidates, best_rows: Ints, found: Floats) -> Candidates:
    return replace(part, features=crossed(part.features, best_rows, found))


def _read(scoring: CrossScoring, rows: Ints, tags: Ints) -> Floats:
    """The cross-encoder's scores of the pairs."""
    found: list[Floats] = [np.zeros(0, np.float32)]
    with console.bar("scoring pairs", len(rows)) as bar:
        for start in range(0, len(rows), CHUNK):
            some = slice(start, start + CHUNK)
            found.append(scoring.cross_encoder.score(scoring.wording.pairs(rows[some], tags[some])))
            bar.advance(len(found[-1]))
    return np.concatenate(found)
