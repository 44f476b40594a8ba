"""Scores become confidences: monotonic in the score, always inside (0, 1), and right as often as they state."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from tagbus.stream.calibrate import (
    MOST_KNOTS,
    Calibration,
    effective_size,
    fit,
    fit_sigmoid,
    load,
    log_loss,
    uncalibrated,
)
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.quality import Flags, Floats, ece

SCORES = Fingerprint("minilm-1", "recall", {})
OTHERS = Fingerprint("minilm-2", "recall", {})


def sample(pairs: int, seed: int = 0) -> tuple[Floats, Flags]:
    """Pairs whose tag is right with probability score squared."""
    random = np.random.default_rng(seed)
    scores = random.random(pairs)
    return scores, random.random(pairs) < scores**2


FEW = st.sampled_from([0.0, 0.25, 0.5, 1.0])
GRID = st.integers(0, 1000).map(lambda step: step / 1000)


@st.composite
def pairs(draw: st.DrawFn, score: st.SearchStrategy[float]) -> tuple[Floats, Flags]:
    """50 to 80 pairs of few or many distinct scores, one right and one wrong among them."""
    size = draw(st.integers(50, 80))
    chosen = FEW if draw(st.booleans()) else score
    scores = draw(st.lists(chosen, min_size=size, max_size=size))
    right = draw(st.lists(st.booleans(), min_size=size - 2, max_size=size - 2))
    return np.array(scores), np.array([True, False, *right])


@given(pairs(st.floats(0, 1)), st.lists(st.floats(-1, 2), max_size=20))
def test_confidence_lies_inside_0_and_1_and_never_falls(given_pairs: tuple[Floats, Flags], asked: list[float]) -> None:
    confidences = fit(*given_pairs, SCORES, 10).apply(np.sort(asked))

    assert confidences.shape == (len(asked),)
    assert ((confidences > 0) & (confidences < 1)).all()
    # Interpolation rounds in the last bit.
    assert (np.diff(confidences) >= -1e-12).all()


# On a grid: scikit-learn takes scores that differ by less than float64's resolution at 1 as equal.
@given(pairs(GRID))
def test_it_is_isotonic_regression_with_a_right_pair_at_the_bottom_and_a_wrong_one_at_the_top(
    given_pairs: tuple[Floats, Flags],
) -> None:
    scores, right = given_pairs

    confidences = fit(scores, right, SCORES, 10).apply(scores)

    reference = IsotonicRegression(out_of_bounds="clip")
    reference.fit(np.append(scores, [scores.min(), scores.max()]), np.append(right, [True, False]))
    np.testing.assert_allclose(confidences, reference.predict(scores).clip(1e-4, 1 - 1e-4), atol=1e-6)


def test_confidence_is_constant_beyond_the_outer_knots_and_linear_between_knots() -> None:
    curve = uncalibrated(SCORES).model_copy(update={"scores": (0.2, 0.4), "probabilities": (0.1, 0.5)})

    np.testing.assert_allclose(curve.apply(np.array([-9, 0.2, 0.3, 0.4, 9])), [0.1, 0.1, 0.3, 0.5, 0.5])


def test_a_few_right_pairs_at_the_top_are_not_certainty() -> None:
    scores = np.append(np.full(57, 0.1), np.full(3, 0.9))
    right = scores > 0.5

    confidences = fit(scores, right, SCORES, 20).apply(np.array([0.1, 0.9]))

    # 1 of 58 with the added right pair, 3 of 4 with the added wrong one.
    np.testing.assert_allclose(confidences, [1 / 58, 3 / 4], atol=1e-6)


def test_confidences_of_unseen_pairs_hold() -> None:
    curve = fit(*sample(20_000), SCORES, 2_000)
    scores, right = sample(20_000, seed=1)

    assert ece(scores, right) > 0.1
    assert ece(curve.apply(scores), right) < 0.02


def test_many_blocks_are_merged_to_few_knots() -> None:
    # A right tag ever more often: each hundred of scores is a block of its own.
    scores = np.arange(50_000) / 50_000
    right = np.arange(50_000) % 100 < np.arange(50_000) // 500

    curve = fit(scores, right, SCORES, 5_000)
    even_more = fit(np.repeat(scores, 2), np.repeat(right, 2), SCORES, 5_000)
    ladder = np.repeat(np.arange(300), 400)
    crowded = fit(ladder / 300, np.tile(np.arange(400), 300) < ladder, SCORES, 5_000)

    assert len(curve.scores) <= MOST_KNOTS
    assert len(even_more.scores) <= MOST_KNOTS
    # 300 blocks become 100, and no confidence is far from its own block's share.
    assert 100 <= len(crowded.scores) <= MOST_KNOTS
    np.testing.assert_allclose(crowded.apply(ladder / 300), ladder / 400, atol=0.01)


def test_the_same_pairs_have_the_same_name_and_others_another() -> None:
    scores, right = sample(500)
    shuffled = np.random.default_rng(2).permutation(500)

    curve = fit(scores, right, SCORES, 50)

    assert curve == fit(scores[shuffled], right[shuffled], SCORES, 50)
    assert curve.name.startswith("isotonic-")
    assert len(curve.name) == len("isotonic-1a2b3c4d")
    assert curve.name != fit(*sample(500, seed=1), SCORES, 50).name
    assert curve.name != fit(scores, right, OTHERS, 50).name


def test_without_a_calibration_the_confidence_is_the_score_inside_0_and_1() -> None:
    curve = uncalibrated(SCORES)

    assert curve.name == "none"
    np.testing.assert_allclose(curve.apply(np.array([-1.0, 0.0, 0.3, 1.0])), [1e-4, 1e-4, 0.3, 1 - 1e-4])


@pytest.mark.parametrize(
    ("scores", "right", "found"),
    [
        (np.linspace(0, 1, 49), np.arange(49) > 20, "there are 49, 28 of them right"),
        (np.linspace(0, 1, 60), np.zeros(60, dtype=bool), "there are 60, 0 of them right"),
        (np.linspace(0, 1, 60), np.ones(60, dtype=bool), "there are 60, 60 of them right"),
        (np.empty(0), np.empty(0, dtype=bool), "there are 0, 0 of them right"),
    ],
)
def test_too_few_pairs_or_one_kind_alone_are_refused(scores: Floats, right: Flags, found: str) -> None:
    with pytest.raises(UserError, match=f"at least 50 pairs.*right and wrong ones.*{found}"):
        fit(scores, right, SCORES, 10)


def test_scores_that_no_calibration_can_be_fitted_to_are_a_bug() -> None:
    scores, right = sample(60)

    with pytest.raises(ValueError, match=r"scores \(59,\) and right \(60,\)"):
        fit(scores[1:], right, SCORES, 10)
    with pytest.raises(ValueError, match="finite"):
        fit(np.append(scores[1:], np.nan), right, SCORES, 10)


@given(pairs(st.floats(0, 1)))
def test_a_saved_calibration_is_loaded_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, given_pairs: tuple[Floats, Flags]
) -> None:
    path = tmp_path_factory.mktemp("calibration") / "c.json"
    curve = fit(*given_pairs, SCORES, 10)

    curve.save(path)

    assert load(path, SCORES) == curve


def test_the_uncalibrated_curve_survives_saving_too(tmp_path: Path) -> None:
    uncalibrated(SCORES).save(tmp_path / "none.json")

    assert load(tmp_path / "none.json", SCORES) == uncalibrated(SCORES)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    fit(*sample(500), SCORES, 50).save(path)
    return path


def test_a_calibration_of_another_release_is_refused_with_both_names(saved: Path) -> None:
    with pytest.raises(ReleaseMismatch, match="'minilm-1 by recall', but this is 'minilm-2 by recall'"):
        load(saved, OTHERS)


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        (Fingerprint("minilm-1", "recall+literal", {}), "minilm-1 by recall+literal"),
        (Fingerprint("minilm-1", "recall", {"heads": "heads-1"}), "minilm-1 by recall (heads heads-1)"),
    ],
)
def test_so_is_one_of_another_path_or_of_other_components(saved: Path, other: Fingerprint, shown: str) -> None:
    message = f"is fitted to 'minilm-1 by recall', but this is '{shown}'; run `tagbus calibrate` with these settings"
    with pytest.raises(ReleaseMismatch, match=re.escape(message)):
        load(saved, other)


def test_the_name_covers_release_path_and_components() -> None:
    scores, right = sample(100)
    both = {"heads": "heads-1", "ranker": "ranker-1"}
    given = [
        SCORES,
        OTHERS,
        Fingerprint("minilm-1", "recall+rank", {}),
        Fingerprint("minilm-1", "recall+rank", both),
        Fingerprint("minilm-1", "recall+rank", both | {"ranker": "ranker-2"}),
    ]
    assert len({fit(scores, right, one, 10).name for one in given}) == len(given)
    turned = Fingerprint("minilm-1", "recall+rank", dict(reversed(both.items())))
    assert fit(scores, right, turned, 10).name == fit(scores, right, given[3], 10).name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": "0.5"}, "scores: '0.5' is wrong, expected a valid array"),
        ({"scores": []}, r"scores: \[\] is wrong"),
        ({"scores": [0.5, 0.5], "probabilities": [0.1, 0.2]}, "scores: .* expected scores that rise"),
        ({"scores": [0.1, 0.2], "probabilities": [0.3, 0.2]}, "probabilities: .* expected probabilities that never"),
        ({"scores": [0.1]}, "probabilities: .* expected as many probabilities as scores"),
        ({"scores": [float("nan")]}, "scores.0: nan is wrong, expected a finite number"),
        ({"probabilities": [1.5]}, "probabilities.0: 1.5 is wrong, expected less than or equal to 0.9999"),
        ({"fitted_on": -1}, "fitted_on: -1 is wrong, expected greater than or equal to 0"),
        ({"release": 7}, "release: 7 is wrong, expected a valid string"),
        ({"path": "recall+"}, r"path: 'recall\+' is wrong"),
        ({"colour": "red"}, "colour: 'red' is wrong, expected no such field"),
        ({"fitted_on": 501}, "name: 'isotonic-.*' is wrong, expected isotonic-.* the hash of the file's content"),
        ({"name": "mine"}, "name: 'mine' is wrong, expected isotonic-"),
    ],
)
def test_a_file_of_the_wrong_form_is_refused_with_field_and_value(
    saved: Path, change: dict[str, object], message: str
) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()) | change))

    with pytest.raises(UserError, match=rf"calibration\.json: {message}"):
        load(saved, SCORES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: .* expected JSON"),
        (b"\xff\xfe", "file: .* expected JSON"),
        (b"[1]", "file: .* is wrong"),
        (b"{}", "name: .* expected this field too"),
        (b" " * 100_001, "more than 100000 bytes"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)

    with pytest.raises(UserError, match=rf"calibration\.json: {message}"):
        load(path, SCORES)


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json: cannot be read .*tagbus calibrate"):
        load(tmp_path / "missing.json", SCORES)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path, SCORES)
    with pytest.raises(UserError, match="cannot be written"):
        uncalibrated(SCORES).save(tmp_path / "no" / "such" / "folder.json")


def test_a_calibration_cannot_be_changed() -> None:
    curve: Calibration = uncalibrated(SCORES)

    with pytest.raises(ValueError, match="frozen"):
        curve.name = "other"  # type: ignore[misc]


@given(pairs(GRID))
def test_a_weight_counts_a_pair_so_many_times(given_pairs: tuple[Floats, Flags]) -> None:
    scores, right = given_pairs
    times = np.arange(len(scores)) % 3 + 1
    weighted = fit(scores, right, SCORES, 10, times.astype(np.float64))
    repeated = fit(np.repeat(scores, times), np.repeat(right, times), SCORES, 10)

    np.testing.assert_allclose(weighted.apply(scores), repeated.apply(scores), atol=1e-6)


def test_weights_take_back_how_pairs_were_chosen() -> None:
    """Right pairs were seen four times as often as wrong ones."""
    scores, right = sample(40_000)
    random = np.random.default_rng(1)
    chance = np.where(right, 0.8, 0.2)
    seen = random.random(len(scores)) < chance
    weights = 1 / chance[seen]

    assert ece(fit(scores[seen], right[seen], SCORES, 10, weights).apply(scores), right) < 0.01
    assert ece(fit(scores[seen], right[seen], SCORES, 10).apply(scores), right) > 0.1


def test_a_sigmoid_is_found_again() -> None:
    random = np.random.default_rng(3)
    scores = random.normal(50, 10, 20_000)
    chance = 1 / (1 + np.exp(-(0.3 * scores - 16)))
    curve = fit_sigmoid(scores, random.random(len(scores)) < chance, SCORES, 10)

    assert curve.name.startswith("platt-")
    assert np.abs(curve.apply(scores) - chance).max() < 0.02


@given(pairs(GRID))
def test_a_sigmoid_never_falls_and_stays_inside_0_and_1(given_pairs: tuple[Floats, Flags]) -> None:
    curve = fit_sigmoid(*given_pairs, SCORES, 10)
    asked = curve.apply(np.linspace(-1, 2, 50))

    assert ((asked > 0) & (asked < 1)).all()
    assert (np.diff(asked) >= -1e-9).all()
    assert Calibration.model_validate_json(curve.model_dump_json()) == curve


def test_few_pairs_that_a_line_parts_give_no_certainty() -> None:
    scores = np.linspace(0, 1, 200)
    asked = fit_sigmoid(scores, scores > 0.5, SCORES, 10).apply(np.array([0.0, 1.0]))

    assert 0 < asked[0] < 0.02
    assert 0.98 < asked[1] < 1


def test_a_sigmoid_is_saved_and_loaded(tmp_path: Path) -> None:
    curve = fit_sigmoid(*sample(100), SCORES, 10)
    curve.save(tmp_path / "c.json")

    assert load(tmp_path / "c.json", SCORES) == curve


def test_the_loss_and_the_effective_size_are_weighted() -> None:
    confidence, right = np.array([0.5, 0.25]), np.array([True, False])
    assert log_loss(confidence, right, np.array([3.0, 1.0])) == pytest.approx((3 * np.log(2) - np.log(0.75)) / 4)
    assert effective_size(np.array([1.0, 1.0, 1.0])) == pytest.approx(3)
    assert effective_size(np.array([20.0, 1.0])) == pytest.approx(441 / 401)


@pytest.mark.parametrize("wrong", [np.zeros(60), np.full(60, np.nan), np.ones(59)])
def test_weights_that_no_calibration_can_be_fitted_to_are_a_bug(wrong: Floats) -> None:
    with pytest.raises(ValueError, match="weights"):
        fit(*sample(60), SCORES, 10, wrong)
