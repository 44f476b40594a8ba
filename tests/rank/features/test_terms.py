"""The feature table `terms`, against a reading of its definition that goes term by term."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.terms import HASHES, READ, SMOOTHED, Terms
from tagbus.stream.recall.words import digest, terms_of
from tests.rank.features.drawing import WIDTH, batch, column

# Contents that hold a term, and how often each tag was right for these.
COUNTED = {
    "bees": (10, {0: 8, 1: 2}),
    "honey": (4, {0: 2, 2: 4}),
    "honey bees": (2, {0: 2}),
    "the": (90, {0: 9, 1: 30, 2: 5, 5: 2}),
}
TAGS = Tables(np.array([20, 50, 6, 0, 1, 2]), np.zeros(0, np.int64), np.zeros(0, np.int64), 100)


def terms(counted: Mapping[str, tuple[int, Mapping[int, int]]]) -> Terms:
    ordered = sorted((digest(term, HASHES), *each) for term, each in counted.items())
    pairs = [pair for _, _, tags in ordered for pair in tags.items()]
    return Terms(
        np.array([one[0] for one in ordered], np.uint32),
        np.array([one[1] for one in ordered], np.int64),
        np.cumsum([0, *(len(tags) for _, _, tags in ordered)]),
        np.array([tag for tag, _ in pairs], np.int32),
        np.array([times for _, times in pairs], np.int32),
    )


TABLE = terms(COUNTED)
words = st.lists(st.sampled_from(["bees", "honey", "the", "unheard"]), max_size=6).map(" ".join)
candidates = st.sets(st.integers(0, WIDTH - 1)).map(sorted)


@settings(max_examples=80)
@given(contents=st.lists(st.tuples(words, candidates), min_size=1, max_size=4))
def test_features_equal_their_definitions(contents: list[tuple[str, list[int]]]) -> None:
    given_ = batch([tags for _, tags in contents], [text for text, _ in contents], TAGS)

    found = TABLE.of(given_).tolist()

    for text, tags in contents:
        for tag in tags:
            row = found.pop(0)
            if tag >= len(TAGS.counts):
                assert all(map(math.isnan, row))
                continue
            held = [COUNTED[term] for term in set(terms_of(text)) if term in COUNTED]
            pairs = [(each[tag] / (count + SMOOTHED), each[tag]) for count, each in held if tag in each]
            best = max(pairs, default=(0.0, 0))
            prior = max(int(TAGS.counts[tag]), 1) / 100
            missed = math.prod(1 - share for share, _ in pairs)
            lift = sum(max(math.log(share / prior), 0) for share, _ in pairs)
            assert row == pytest.approx([best[0], math.log1p(best[1]), 1 - missed, lift], rel=1e-4, abs=1e-6)


def test_only_the_first_terms_of_a_long_text_are_read() -> None:
    long = " ".join(f"word{number}" for number in range(READ))
    found = TABLE.of(batch([[0], [0]], [f"bees {long}", f"{long} bees"], TAGS))

    assert column(TABLE, found, "terms_max") == pytest.approx([8 / 15, 0])


def test_without_known_terms_nothing_speaks_for_a_tag() -> None:
    found = terms({}).of(batch([[0, 8]], ["bees"], TAGS))

    assert found[0].tolist() == [0, 0, 0, 0]
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"starts": np.array([0, 2])},
        {"tags": np.full(9, 6, np.int32)},
        {"together": np.ones(3, np.int32)},
        {"hashes": TABLE.hashes[::-1]},
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed: dict[str, np.ndarray]) -> None:
    kept = Terms.load(TABLE.arrays(), 6)
    assert all(np.array_equal(array, TABLE.arrays()[name]) for name, array in kept.arrays().items())
    with pytest.raises(ValueError, match="do not fit"):
        Terms.load({**TABLE.arrays(), **changed}, 6)
