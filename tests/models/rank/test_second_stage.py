"""The second stage's training set: the first one's, with a cross-encoder's scores for the best candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tagbus.models.rank.candidates import Candidates, TrainingSet
from tagbus.models.rank.second_stage import CrossScoring, add_cross_scores
from tagbus.stream.rank.cross_encoder.pairs import Pair, Wording
from tagbus.stream.recall.pool import Floats

IDS = ("a", "b", "c")
WORDING = Wording(["0", "1"], IDS, {key: {"name": key, "aliases": []} for key in IDS})


@dataclass
class Reads:
    """A cross-encoder whose score encodes the pair: number of the content, decimal point, number of the tag."""

    name: str = "cross_encoder-00000000"
    asked: list[Pair] = field(default_factory=list)

    def score(self, pairs: Sequence[Pair]) -> Floats:
        self.asked += pairs
        return np.array([int(content) + IDS.index(tag) / 10 for tag, content in pairs], np.float32)


def candidates(rows: list[int], tags: list[int]) -> Candidates:
    count = len(rows)
    nothing = np.zeros(count, np.float32)
    return Candidates(np.array(rows), np.array(tags), np.arange(2 * count).reshape(-1, 2), nothing > 0, nothing)


TRAINING_SET = TrainingSet(
    candidates([0, 0, 0, 1, 1], [0, 1, 2, 0, 2]),
    candidates([0, 0, 1, 1], [1, 2, 0, 2]),
    [np.array([0]), np.array([2])],
    np.ones(3),
)
ORDERS = np.array([0.1, 0.2, 0.3, 1.0, 0.0]), np.array([2.0, 1.0, 0.0, 1.0])


def test_the_best_of_each_content_are_asked_about_once() -> None:
    reads = Reads()

    found = add_cross_scores(TRAINING_SET, ORDERS, CrossScoring(reads, WORDING), 1)

    assert sorted(reads.asked) == [("a", "1"), ("b", "0"), ("c", "0"), ("c", "1")]
    nan = np.nan
    assert np.array_equal(found.plain.features[:, -1], np.array([nan, nan, 0.2, 1, nan], np.float32), equal_nan=True)
    assert np.array_equal(found.masked.features[:, -1], np.array([0.1, nan, nan, 1.2], np.float32), equal_nan=True)


def test_all_else_stays_as_it_was() -> None:
    found = add_cross_scores(TRAINING_SET, ORDERS, CrossScoring(Reads(), WORDING), 24)

    assert np.array_equal(found.plain.features[:, :-1], TRAINING_SET.plain.features)
    assert not np.isnan(found.plain.features).any()
    assert found.masked.tags.tolist() == TRAINING_SET.masked.tags.tolist()
    assert (found.truth, found.propensity) == (TRAINING_SET.truth, TRAINING_SET.propensity)


def test_a_pair_of_both_views_is_read_once() -> None:
    reads = Reads()

    add_cross_scores(TRAINING_SET, ORDERS, CrossScoring(reads, WORDING), 24)

    assert len(reads.asked) == len(set(reads.asked)) == 5
