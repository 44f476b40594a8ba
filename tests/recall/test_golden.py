"""The golden answers of heads: their own pass, on whatever machine, and those of other heads do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.local.triton import default_repository
from tagbus.stream.recall.classifier.golden import BEST, NEAR, QUESTIONS, Golden
from tagbus.stream.recall.heads.golden import questions
from tagbus.stream.recall.heads.model import MODEL, WORDS, golden_of, read_manifest
from tagbus.stream.recall.words import Vocabulary

FOLDER = default_repository() / "heads" / "1"
NUMBERS = np.arange(QUESTIONS * 8).reshape(QUESTIONS, 8)
CHANCES = np.tile(np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01], np.float32), (QUESTIONS, 1))
GOLDEN = Golden.of(NUMBERS, CHANCES)


def test_the_shipped_answers_are_those_of_the_shipped_model() -> None:
    manifest = read_manifest(FOLDER)
    terms = len(Vocabulary.parse(WORDS, (FOLDER / WORDS).read_bytes()).frequencies)
    assert manifest.golden == golden_of((FOLDER / MODEL).read_bytes(), terms, manifest.dimension)


@given(terms=st.integers(1, 10**6), dimension=st.integers(1, 1024))
def test_the_questions_are_such_as_contents_ask(terms: int, dimension: int) -> None:
    numbers, weights, vectors = questions(terms, dimension)
    assert numbers.min() >= 0
    assert numbers.max() < terms
    assert not weights[0].any()
    np.testing.assert_allclose(np.linalg.norm(weights[1:], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert [one.dtype.name for one in (numbers, weights, vectors)] == ["int64", "float32", "float32"]


def test_tags_that_change_places_within_the_tolerance_pass() -> None:
    order = [1, 0, *range(2, 8)]
    near = (CHANCES * (1 + NEAR / 2)).astype(np.float32)
    GOLDEN.check(NUMBERS[:, order], near[:, order], "heads-1", "10.0.0.7:8001")


@pytest.mark.parametrize("row", range(QUESTIONS))
@pytest.mark.parametrize("place", range(BEST))
def test_another_tag_and_another_probability_are_refused(row: int, place: int) -> None:
    numbers, chances = NUMBERS.copy(), CHANCES.copy()
    numbers[row, place] = 999
    chances[row, place] *= 1 + 2 * NEAR
    words = f"10.0.0.7:8001 is not heads-1: golden question {row} gives tag number {row * 8 + place}"
    for found in ((numbers, CHANCES), (NUMBERS, chances)):
        with pytest.raises(ReleaseMismatch, match=words):
            GOLDEN.check(*found, "heads-1", "10.0.0.7:8001")


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(ReleaseMismatch):
        GOLDEN.check(NUMBERS, CHANCES * np.float32(np.nan), "heads-1", "10.0.0.7:8001")


def test_an_answer_without_its_probabilities_is_none() -> None:
    with pytest.raises(ValidationError, match="expected a probability for each tag"):
        Golden(tags=GOLDEN.tags, chances=(*GOLDEN.chances[1:], ()))
