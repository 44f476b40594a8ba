"""Mining: negatives that are wrong and near, coherent clusters, and batches without repetition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.models.data.truth import Truth
from tagbus.models.train import mine
from tagbus.stream.errors import UserError


def unit(random: np.random.Generator, n: int, width: int = 8) -> np.ndarray:
    found = random.normal(size=(n, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_hard_negatives_are_the_nearest_wrong_tags() -> None:
    """Negatives are distinct and among the ten nearest wrong tags."""
    random = np.random.default_rng(0)
    contents, tags = unit(random, 50), unit(random, 40)
    truth = Truth.of(random.choice(40, 3, replace=False).tolist() for _ in contents)
    found = mine.hard_negatives(contents, tags, truth, 4, 10, seed=1)
    for row, chosen in enumerate(found):
        order = [tag for tag in np.argsort(-contents[row] @ tags.T) if tag not in truth[row]]
        assert len(set(chosen)) == 4
        assert set(chosen) <= set(order[:10])
    assert (found == mine.hard_negatives(contents, tags, truth, 4, 10, seed=1)).all()
    assert (found != mine.hard_negatives(contents, tags, truth, 4, 10, seed=2)).any()


def test_too_few_wrong_tags_are_told() -> None:
    with pytest.raises(UserError, match="--negatives: 3 is wrong, a content has only 2 wrong tags"):
        mine.hard_negatives(np.ones((1, 2), np.float32), np.ones((4, 2), np.float32), Truth.of([[0, 1]]), 3, 4, 0)


def test_clusters_hold_what_is_alike_together() -> None:
    """Given four distant groups in random order, then each comes out contiguous."""
    random = np.random.default_rng(0)
    group = random.permutation(np.repeat(np.arange(4), 16))
    vectors = (np.eye(4)[group] + 0.01 * random.normal(size=(64, 4))).astype(np.float32)
    order = mine.clusters(vectors, 16, seed=0)
    assert sorted(order) == list(range(64))
    assert (np.diff(group[order]) != 0).sum() == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60, unique=True), st.integers(1, 8))
def test_batches_hold_every_pair_once_and_no_tag_twice(pairs: list[tuple[int, int]], size: int) -> None:
    contents, tags = (np.array([pair[place] for pair in pairs], np.int64) for place in (0, 1))
    found = list(mine.batches(contents, tags, size))
    assert sorted(int(row) for batch in found for row in batch) == list(range(len(pairs)))
    for batch in found:
        assert 0 < len(batch) <= size
        assert len(set(contents[batch])) == len(set(tags[batch])) == len(batch)
