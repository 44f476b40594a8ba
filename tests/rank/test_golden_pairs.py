"""The golden pairs of a cross-encoder: its own scores pass, on whatever machine, and those of another do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tagbus.stream.encoder.release import TOKENIZER, default_folder
from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.rank.cross_encoder.golden import LEAST, NEAR, PAIRS, Golden
from tagbus.stream.rank.cross_encoder.pairs import PairReader

LOGITS = np.linspace(-6, 6, len(PAIRS))
GOLDEN = Golden.of(np.asarray(1 / (1 + np.exp(-LOGITS)), np.float32))
WHERE = "10.0.0.7:8001"


def scores(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def test_there_are_pairs_of_every_length_that_requests_are_padded_to() -> None:
    reader = PairReader((default_folder() / TOKENIZER).read_text(), 96)
    lengths = [len(one.ids) for one in reader.tokens(PAIRS)]
    assert len(set(PAIRS)) == len(PAIRS)
    assert min(lengths) <= 32
    assert any(32 < length <= 64 for length in lengths)
    assert any(64 < length < 96 for length in lengths)
    assert max(lengths) == 96


@given(moved=st.lists(st.floats(-0.9 * NEAR, 0.9 * NEAR), min_size=len(PAIRS), max_size=len(PAIRS)))
def test_what_another_machine_makes_of_it_passes(moved: list[float]) -> None:
    GOLDEN.check(scores(LOGITS + moved), "cross_encoder-1", WHERE)


@pytest.mark.parametrize("row", range(len(PAIRS)))
@pytest.mark.parametrize("moved", [-2 * NEAR, 2 * NEAR])
def test_a_score_of_another_one_is_refused_with_server_and_pair(row: int, moved: float) -> None:
    found = LOGITS.copy()
    found[row] += moved
    with pytest.raises(ReleaseMismatch) as caught:
        GOLDEN.check(scores(found), "cross_encoder-1", WHERE)
    assert str(caught.value).startswith(f"{WHERE} is not cross_encoder-1: golden pair '{PAIRS[row][0][:5]}")


@pytest.mark.parametrize(("one", "other"), [(0.0, LEAST / 2), (1.0, 1 - LEAST / 2)])
def test_scores_that_are_all_but_certain_are_one(one: float, other: float) -> None:
    golden = Golden.of(np.full(len(PAIRS), one, np.float32))
    golden.check(np.full(len(PAIRS), other, np.float32), "cross_encoder-1", WHERE)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ReleaseMismatch):
        GOLDEN.check(np.full(len(PAIRS), np.nan, np.float32), "cross_encoder-1", WHERE)


def test_each_pair_has_a_score() -> None:
    with pytest.raises(ValidationError, match="expected a score for each pair"):
        Golden(pairs=PAIRS, scores=(0.5,))
    assert Golden.model_validate_json(GOLDEN.model_dump_json()) == GOLDEN
