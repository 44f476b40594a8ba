"""The tag vectors that an encoder was trained against: kept, put into another order, asked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tagbus.models.losses import SCALE
from tagbus.models.tagvectors import FILE, TagVectors
from tagbus.stream.errors import UserError

KNOWN = TagVectors(("a", "b"), np.array([[1, 0, 0], [0, 1, 0]], np.float32), np.array([0.5, -0.5], np.float32))


def test_they_come_back_as_they_were_kept(tmp_path: Path) -> None:
    KNOWN.save(tmp_path)

    found = TagVectors.load(tmp_path)

    assert found.ids == KNOWN.ids
    assert np.array_equal(found.vectors, KNOWN.vectors)
    assert np.array_equal(found.bias, KNOWN.bias)


def test_a_chance_is_the_softmax_of_the_scaled_product_and_the_bias() -> None:
    (found,) = KNOWN.chances(torch.tensor([[0.6, 0.8, 0.0]])).numpy()

    logits = np.array([SCALE * 0.6 + 0.5, SCALE * 0.8 - 0.5])
    assert found == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-6)


def test_a_tag_that_they_do_not_know_has_no_chance_and_takes_none() -> None:
    content = torch.tensor([[0.6, 0.8, 0.0]])

    found = KNOWN.of(("new", "b", "a"), 3).chances(content).numpy()

    assert found[0, 0] == 0
    assert found[0, [2, 1]] == pytest.approx(KNOWN.chances(content).numpy()[0])


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(UserError, match="3 numbers, those of the release 384"):
        KNOWN.of(("a",), 384)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_folder_without_them_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)

    with pytest.raises(UserError, match=r"tags\.npz.*--recipe upper"):
        TagVectors.load(tmp_path)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    TagVectors(("a", "b", "c"), KNOWN.vectors, KNOWN.bias).save(tmp_path)

    with pytest.raises(UserError, match="3 tags"):
        TagVectors.load(tmp_path)
