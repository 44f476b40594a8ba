"""The figures are checked against scikit-learn, against their formulas written out content by content, and by hand."""

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import ndcg_score, precision_score, recall_score

from tagbus.stream.errors import UserError
from tagbus.stream.quality import (
    Floats,
    Quality,
    Ranked,
    Truth,
    acc_at,
    at_least,
    coverage_at,
    ece,
    f1_at,
    hit_rate,
    hits,
    measure,
    ndcg_at,
    precision_at,
    propensities,
    psp_at,
    recall_at,
    right_tags,
)

TAGS = 12
CUTS = (1, 3, 5, 10)


def ranked(*rows: list[int]) -> Ranked:
    """Rows of tags, best first, filled with -1 to one width; scores fall from 0.9."""
    width = max(map(len, rows))
    indices = np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int64).reshape(len(rows), width)
    return Ranked(indices, np.tile(0.9 - np.arange(width) / 50, (len(rows), 1)))


def truth(*rows: list[int]) -> Truth:
    return [np.array(row, dtype=np.int64) for row in rows]


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Found and right tags for 1 to 8 contents, and how often each of 12 tags was given to 500."""
    tags = st.integers(0, TAGS - 1)
    contents = draw(st.integers(1, 8))
    found = draw(st.lists(st.lists(tags, unique=True, max_size=11), min_size=contents, max_size=contents))
    right = draw(st.lists(st.lists(tags, unique=True, min_size=1, max_size=11), min_size=contents, max_size=contents))
    return found, right, draw(st.lists(st.integers(0, 500), min_size=TAGS, max_size=TAGS))


Evaluation = tuple[list[list[int]], list[list[int]], list[int]]


@given(evaluations())
def test_every_figure_equals_its_formula_written_out(evaluation: Evaluation) -> None:
    found, right, counts = evaluation
    propensity = propensities(np.array(counts), 500)
    scale = (math.log(500) - 1) * 2.5**0.55
    worth = [1 + scale * math.exp(-0.55 * math.log(count + 1.5)) for count in counts]

    for k in CUTS:
        precision = recall = ndcg = got = best = 0.0
        for row, known in zip(found, right, strict=True):
            correct = [tag for tag in row[:k] if tag in known]
            precision += len(correct) / k / len(found)
            recall += len(correct) / len(known) / len(found)
            gain = sum(1 / math.log2(rank + 2) for rank, tag in enumerate(row[:k]) if tag in known)
            ndcg += gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(known)))) / len(found)
            got += sum(worth[tag] for tag in correct)
            best += sum(sorted((worth[tag] for tag in known), reverse=True)[:k])
        assert precision_at(ranked(*found), truth(*right), k) == pytest.approx(100 * precision)
        assert recall_at(ranked(*found), truth(*right), k) == pytest.approx(100 * recall)
        assert ndcg_at(ranked(*found), truth(*right), k) == pytest.approx(100 * ndcg)
        assert psp_at(ranked(*found), truth(*right), propensity, k) == pytest.approx(100 * got / best)


def test_ndcg_precision_and_recall_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    scores = random.random((200, 30))
    relevant = random.random((200, 30)) < 0.2
    relevant[:, 0] |= ~relevant.any(axis=1)
    indices = np.argsort(-scores, axis=1)
    found = Ranked(indices, np.take_along_axis(scores, indices, axis=1))
    right = [row.nonzero()[0] for row in relevant]

    for k in CUTS:
        chosen = np.zeros_like(relevant)
        np.put_along_axis(chosen, indices[:, :k], values=True, axis=1)
        assert ndcg_at(found, right, k) == pytest.approx(100 * ndcg_score(relevant, scores, k=k))
        assert precision_at(found, right, k) == pytest.approx(
            100 * precision_score(relevant, chosen, average="samples", zero_division=0)
        )
        assert recall_at(found, right, k) == pytest.approx(100 * recall_score(relevant, chosen, average="samples"))


def test_a_small_case_worked_by_hand() -> None:
    # Two contents: the first finds tag 1 at rank 1 and tag 2 at rank 3 of {1, 2, 3}; the second finds nothing of {4}.
    found = ranked([1, 5, 2], [6])
    right = truth([1, 2, 3], [4])
    propensity = np.array([1, 0.5, 0.25, 0.1, 0.2, 1, 1])

    figures = measure(found, right, propensity)

    assert figures.p_at_1 == pytest.approx(50)
    assert figures.p_at_3 == pytest.approx(100 * (2 / 3) / 2)
    assert figures.p_at_5 == pytest.approx(20)
    assert figures.r_at_10 == pytest.approx(100 * (2 / 3) / 2)
    # (1 + 1/2) of (1 + 1/log2(3) + 1/2), and 0 for the second.
    assert figures.ndcg_at_5 == pytest.approx(100 * 1.5 / 2.1309297535714573 / 2)
    # 2 + 4 of 2 + 4 + 10 and 5.
    assert figures.psp_at_5 == pytest.approx(100 * 6 / 21)
    # Found with 0.9, 0.88, 0.86 and 0.9: the upper bins hold (0.86) right, (0.88, 0.9, 0.9) with one right.
    assert figures.ece == pytest.approx((abs(0.86 - 1) + abs(2.68 - 1)) / 4)


@given(evaluations())
def test_published_figures_equal_their_formulas_written_out(evaluation: Evaluation) -> None:
    found, right, _ = evaluation
    correct = [[tag in known for tag in row] for row, known in zip(found, right, strict=True)]
    for k in CUTS:
        pairs = [(sum(row[:k]), len(row[:k]), len(known)) for row, known in zip(correct, right, strict=True)]
        accuracy = [hit / places for hit, places, _ in pairs if places]
        f1 = [2 * hit / (places + known) for hit, places, known in pairs]
        if accuracy:
            assert acc_at(ranked(*found), truth(*right), k) == pytest.approx(100 * sum(accuracy) / len(accuracy))
        assert f1_at(ranked(*found), truth(*right), k) == pytest.approx(100 * sum(f1) / len(f1))
        assert coverage_at(ranked(*found), k) == pytest.approx(100 * np.mean([len(row) >= k for row in found]))
        assert hit_rate(ranked(*found), truth(*right), k) == pytest.approx(
            100 * np.mean([sum(c) >= k for c in correct])
        )
    assert right_tags(ranked(*found), truth(*right)) == pytest.approx(sum(map(sum, correct)) / len(found))


@given(evaluations(), st.floats(0.6, 1))
def test_tags_with_at_least_the_confidence_keep_their_order(evaluation: Evaluation, confidence: float) -> None:
    found = ranked(*evaluation[0])

    kept = at_least(found, confidence)

    for before, scores, after in zip(found.indices, found.scores, kept.indices, strict=True):
        sure = [tag for tag, score in zip(before, scores, strict=True) if tag >= 0 and score >= confidence]
        assert [tag for tag in after if tag >= 0] == sure


def test_published_tags_worked_by_hand() -> None:
    # Two of three are right, then one of one, then nothing was sure enough.
    found = ranked([1, 5, 2], [6], [])
    right = truth([1, 2, 3], [6], [4])

    assert acc_at(found, right, 3) == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert acc_at(found, right, 1) == pytest.approx(100)
    assert (coverage_at(found, 1), coverage_at(found, 3)) == pytest.approx((200 / 3, 100 / 3))
    assert right_tags(found, right) == pytest.approx(1)
    assert (hit_rate(found, right, 1), hit_rate(found, right, 2)) == pytest.approx((200 / 3, 100 / 3))
    assert f1_at(found, right, 5) == pytest.approx(100 * (4 / 6 + 2 / 2 + 0) / 3)


@given(evaluations())
def test_a_perfect_ranking_has_100(evaluation: Evaluation) -> None:
    _, right, counts = evaluation
    propensity = propensities(np.array(counts), 500)
    rarest_first = [sorted(known, key=lambda tag: propensity[tag]) for known in right]

    figures = measure(ranked(*rarest_first), truth(*right), propensity)

    assert figures.p_at_1 == pytest.approx(100)
    assert figures.ndcg_at_5 == pytest.approx(100)
    assert figures.psp_at_5 == pytest.approx(100)
    assert recall_at(ranked(*rarest_first), truth(*right), 11) == pytest.approx(100)


@given(evaluations(), st.randoms(use_true_random=False))
def test_the_order_of_contents_and_the_numbers_of_tags_change_nothing(evaluation: Evaluation, random: Random) -> None:
    found, right, counts = evaluation
    if not any(found):
        found = [[0] for _ in found]
    order = list(range(len(found)))
    names = list(range(TAGS))
    random.shuffle(order)
    random.shuffle(names)
    renamed = np.empty(TAGS, dtype=np.int64)
    renamed[names] = counts

    before = measure(ranked(*found), truth(*right), propensities(np.array(counts), 500))
    after = measure(
        ranked(*[[names[tag] for tag in found[row]] for row in order]),
        truth(*[[names[tag] for tag in right[row]] for row in order]),
        propensities(renamed, 500),
    )

    for name in Quality.__slots__:
        assert getattr(after, name) == pytest.approx(getattr(before, name))


def test_rarer_tags_are_worth_more() -> None:
    propensity = propensities(np.array([0, 1, 10, 100, 1000]), 1000)

    assert (np.diff(propensity) > 0).all()
    assert (propensity > 0).all()
    assert (propensity < 1).all()


def test_hits_are_judged_content_by_content() -> None:
    found = ranked([0, 3], [3], [2, 0])

    assert hits(found, truth([3], [0, 3], [1])).tolist() == [[False, True], [True, False], [False, False]]


def test_ece_of_true_confidences_is_small_and_of_false_ones_is_their_gap() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(50_000)
    right = random.random(50_000) < confidence

    assert ece(confidence, right) < 0.02
    assert ece(confidence / 2, right) == pytest.approx(0.25, abs=0.01)
    assert ece(np.full(10, 0.8), np.zeros(10, dtype=bool)) == pytest.approx(0.8)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_equals_scikit_learns_calibration_curve_weighted_by_counts(pairs: list[tuple[float, bool]]) -> None:
    confidence = np.array([pair[0] for pair in pairs])
    right = np.array([pair[1] for pair in pairs])
    share, mean = calibration_curve(right, confidence, n_bins=15, pos_label=True)
    edges = np.linspace(0, 1, 16)
    counts = [
        sum((low < value <= high) or (low == value == 0) for value in confidence) for low, high in pairwise(edges)
    ]

    expected = np.abs(share - mean) @ [count for count in counts if count] / len(pairs)

    assert ece(confidence, right) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("right", "message"),
    [
        (truth([1], []), r"content 1 \(from 0\) has no right tag"),
        (truth([1], [2, 2]), r"content 1 \(from 0\): \[2, 2\], expected tag numbers >= 0, each once"),
        (truth([-1], [2]), r"content 0 \(from 0\): \[-1\], expected tag numbers >= 0"),
        (truth(), "no contents"),
    ],
)
def test_a_truth_that_is_none_is_refused_with_its_content(right: Truth, message: str) -> None:
    with pytest.raises(UserError, match=message):
        precision_at(ranked([1], [2]), right, 1)


def test_nothing_found_at_all_cannot_be_measured() -> None:
    with pytest.raises(UserError, match="no tag was found"):
        measure(ranked([], []), truth([1], [2]), np.ones(3))


def test_nothing_published_is_neither_right_nor_wrong() -> None:
    with pytest.raises(UserError, match="no content got a tag"):
        acc_at(ranked([], []), truth([1], [2]), 1)
    assert coverage_at(ranked([], []), 1) == 0


def test_too_few_training_contents_have_no_propensities() -> None:
    with pytest.raises(UserError, match="at least 3"):
        propensities(np.array([1]), 2)


SCORES: Floats = np.full((1, 2), 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ranked(np.array([[1, 2]]), SCORES[:, :1]), "one shape"),
        (lambda: Ranked(np.array([[2, 2]]), SCORES), "only once"),
        (lambda: Ranked(np.array([[-1, 2]]), SCORES), "end of a row"),
        (lambda: Ranked(np.array([[2, -2]]), SCORES), "0 or above"),
        (lambda: precision_at(ranked([1]), truth([1]), 0), "k: 0, expected at least 1"),
        (lambda: hit_rate(ranked([1]), truth([1]), 0), "k: 0, expected at least 1"),
        (lambda: precision_at(ranked([1]), truth([1], [2]), 1), "truth is of 2 contents, but 1 were tagged"),
        (lambda: psp_at(ranked([1]), truth([9]), np.ones(9), 5), "tag 9 has no propensity; there are 9"),
        (lambda: ece(np.array([0.5]), np.array([True, False])), "one shape"),
        (lambda: ece(np.array([1.5]), np.array([True])), "expected 0 to 1"),
        (lambda: ece(np.array([np.nan]), np.array([True])), "expected 0 to 1"),
    ],
)
def test_arrays_of_the_wrong_form_are_a_bug(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
