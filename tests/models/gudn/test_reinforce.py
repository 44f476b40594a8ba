"""Labels as long as a text: once, repeated in order, repeated in random order."""

from collections import Counter

import numpy as np
import pytest

from tagbus.models.data.texts import tokenizer
from tagbus.models.export.bert import weights_folder
from tagbus.models.gudn.plan import Labels
from tagbus.models.gudn.reinforce import Names

TAGS = Names(((1,), (2, 3), (4, 5, 6, 7), ()), 101, 102)


def sequence(tags: list[int], how: Labels, most: int, seed: int = 0) -> list[int]:
    return TAGS.sequence(tags, how, most, np.random.default_rng(seed))


def test_raw_labels_are_there_once() -> None:
    assert sequence([0, 1], "raw", 64) == [101, 1, 2, 3, 102]


def test_ordered_labels_repeat_until_no_whole_one_fits() -> None:
    assert sequence([0, 1], "ordered", 10) == [101, 1, 2, 3, 1, 2, 3, 1, 102]


def test_disordered_labels_are_as_many_in_an_order_of_each_round() -> None:
    found = [sequence([0, 1], "disordered", 20, seed) for seed in range(8)]
    assert {tuple(sorted(Counter(one).items())) for one in found} == {((1, 6), (2, 6), (3, 6), (101, 1), (102, 1))}
    assert len({tuple(one) for one in found}) > 1
    assert found[0] == sequence([0, 1], "disordered", 20, 0)


@pytest.mark.parametrize("how", ["raw", "ordered", "disordered"])
def test_a_name_that_does_not_fit_alone_is_cut(how: Labels) -> None:
    assert sequence([2], how, 4) == [101, 4, 5, 102]


@pytest.mark.parametrize("how", ["raw", "ordered", "disordered"])
def test_names_of_which_nothing_is_left_do_not_repeat_for_ever(how: Labels) -> None:
    assert sequence([3, 3], how, 64) == [101, 102]


def test_names_come_from_the_tokenizer_and_a_batch_is_padded() -> None:
    names = Names.read(["tea", "coffee and milk"], tokenizer(weights_folder(), 16))
    ids, mask = names.batch([[0], [1]], "raw", 16, np.random.default_rng(0))
    assert mask.sum(1).tolist() == [3, 5]
    assert ids[0].tolist()[2:] == [102, 0, 0]
    assert ids[:, 0].tolist() == [101, 101]
