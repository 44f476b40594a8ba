"""The tag vectors that an encoder was trained against: kept, read again, asked."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.errors import UserError
from tagbus.stream.recall.tagvectors import CONTENTS, FILE, TagVectors, read

PLACE = Path("tags.npz")
SCALE = 20.0
KNOWN = TagVectors(("a", "b"), np.array([[1, 0, 0], [0, 1, 0]], np.float32), np.array([0.5, -0.5], np.float32), SCALE)


def test_they_come_back_as_they_were_kept() -> None:
    found = TagVectors.parse(PLACE, KNOWN.dump())

    assert (found.ids, found.scale) == (KNOWN.ids, SCALE)
    assert np.array_equal(found.vectors, KNOWN.vectors)
    assert np.array_equal(found.bias, KNOWN.bias)


def test_a_chance_is_the_softmax_of_the_scaled_product_and_the_bias() -> None:
    (found,) = KNOWN.best(np.array([[0.6, 0.8, 0]], np.float32), 60)

    logits = np.array([SCALE * 0.6 + 0.5, SCALE * 0.8 - 0.5])
    assert list(found) == ["b", "a"]
    assert [found["a"], found["b"]] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-6)


@given(st.integers(1, 3 * CONTENTS), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_best_are_the_best_of_all_whatever_stands_beside(contents: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors, bias = random.normal(size=(30, 4)).astype(np.float32), random.normal(size=30).astype(np.float32)
    some = TagVectors(tuple(f"t{number}" for number in range(30)), vectors, bias, 5.0)
    asked = random.normal(size=(contents, 4)).astype(np.float32)

    found = some.best(asked, count)

    assert [len(one) for one in found] == [min(count, 30)] * contents
    for one, logits in zip(found, 5 * asked @ vectors.T + bias, strict=True):
        assert list(one.values()) == sorted(one.values(), reverse=True)
        least = min(logits[int(tag[1:])] for tag in one)
        assert (logits > least + 1e-3).sum() <= len(one)
    alone = [some.best(asked[row : row + 1], count)[0] for row in range(min(contents, 3))]
    assert [list(one) for one in alone] == [list(one) for one in found[:3]]


def test_the_name_is_another_for_other_vectors(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(KNOWN.dump())
    first = read(tmp_path)
    (tmp_path / FILE).write_bytes(TagVectors(KNOWN.ids, KNOWN.vectors, 2 * KNOWN.bias, SCALE).dump())

    assert first[0] == KNOWN.dump()
    assert first[1] != read(tmp_path)[1]


def test_a_folder_without_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tags\.npz.*--recipe top-layers"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", KNOWN.dump()[:-30]])
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"tags\.npz.*--recipe top-layers"):
        TagVectors.parse(PLACE, content)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="3 tags"):
        TagVectors.parse(PLACE, TagVectors(("a", "b", "c"), KNOWN.vectors, KNOWN.bias, SCALE).dump())
