"""The ranker's second stage: what it learns from, which is the first stage's training set and a cross-encoder's score.

The cross-encoder is asked about the best few candidates of each content by the order of trees that have not learnt from
that content, as in the tagger. It may not have been trained on these contents either.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tagbus.models.rank.candidates import Candidates, Scores, TrainingSet
from tagbus.stream.app import console
from tagbus.stream.rank.candidates import best
from tagbus.stream.rank.cross_encoder import CrossEncoder, Wording
from tagbus.stream.rank.trees import crossed
from tagbus.stream.recall.pool import Floats, Ints

# Pairs between two steps of the progress bar.
CHUNK: Final = 1024


@dataclass(frozen=True, slots=True)
class CrossScoring:
    """A cross-encoder, and the texts of a training set's contents by row and of its tags by number."""

    cross_encoder: CrossEncoder
    wording: Wording


def add_cross_scores(
    training_set: TrainingSet, orders: tuple[Scores, Scores], scoring: CrossScoring, top: int
) -> TrainingSet:
    """The training set with the column `cross` for the `top` best of each content.

    `orders` are the first stage's scores of the plain and of the masked candidates, float64 [m] each.
    """
    parts = (training_set.plain, training_set.masked)
    asked = [best(part.rows, part.tags, order, top) for part, order in zip(parts, orders, strict=True)]
    width = len(scoring.wording.ids)
    keys = [part.rows[some] * width + part.tags[some] for part, some in zip(parts, asked, strict=True)]
    # Most pairs are asked about in both, and cost the same twice.
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    found = _read(scoring, pairs // width, pairs % width)[place]
    plain, masked = (
        _with(part, some, scores)
        for part, some, scores in zip(parts, asked, np.split(found, [len(keys[0])]), strict=True)
    )
    return replace(training_set, plain=plain, masked=masked)


def _with(part: Candidates, asked: Ints, found: Floats) -> Candidates:
    return replace(part, features=crossed(part.features, asked, found))


def _read(scoring: CrossScoring, rows: Ints, tags: Ints) -> Floats:
    """The cross-encoder's score of each pair."""
    found: list[Floats] = [np.zeros(0, np.float32)]
    with console.bar("reading pairs", len(rows)) as bar:
        for start in range(0, len(rows), CHUNK):
            some = slice(start, start + CHUNK)
            found.append(scoring.cross_encoder.score(scoring.wording.pairs(rows[some], tags[some])))
            bar.advance(len(found[-1]))
    return np.concatenate(found)
