"""Texts as token ids: batches, epochs, tokens left out, and which texts share a tag."""

import numpy as np
import torch

from tagbus.models.data.texts import tokenizer
from tagbus.models.export.bert import weights_folder
from tagbus.models.train.whole.rows import Rows, epoch, shared

CPU = torch.device("cpu")
CLS, SEP = 101, 102


def read(*rows: tuple[str, list[int]]) -> Rows:
    return Rows.read(rows, tokenizer(weights_folder(), 8), lambda _: None)


def test_a_batch_holds_its_texts_and_their_right_tags() -> None:
    rows = read(("tea", [1]), ("coffee and milk", [0, 2])) + read(("a name", [3]))

    batch = rows.batch(np.array([1, 2]), CPU)

    assert batch.lengths.tolist() == [5, 4]
    assert batch.mask.sum(1).tolist() == [5, 4]
    assert batch.ids[:, 0].tolist() == [CLS, CLS]
    assert batch.ids[1].tolist()[3:] == [SEP, 0]
    assert list(zip(batch.rows.tolist(), batch.tags.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 3)]


def test_a_long_text_is_cut() -> None:
    assert read(("tea " * 40, [0])).lengths.tolist() == [8]


def test_tokens_are_left_out_but_never_the_ends_nor_all() -> None:
    batch = read(*[("coffee and milk and tea", [0])] * 200, ("tea", [1])).batch(np.arange(201), CPU)
    torch.manual_seed(0)

    thin = batch.thinned(0.5)

    assert 0.4 < (thin.lengths[:200] - 2).float().mean() / 5 < 0.65
    for ids, length, whole in zip(thin.ids.tolist(), thin.lengths.tolist(), batch.ids.tolist(), strict=True):
        assert length >= 3
        assert (ids[0], ids[length - 1]) == (CLS, SEP)
        rest = iter(whole)
        assert all(token in rest for token in ids[:length]), "in their order"
    assert torch.equal(batch.thinned(0.0).ids, batch.ids)


def test_an_epoch_has_each_content_once_and_each_name_as_often_as_asked() -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 90)

    made = epoch(lengths, 60, 2, 12, seed=1)

    counts = np.bincount(np.concatenate(made), minlength=90)
    assert counts[:60].tolist() == [1] * 60
    assert counts[60:].tolist() == [2] * 30
    other = epoch(lengths, 60, 2, 12, seed=2)
    assert [rows.tolist() for rows in made] != [rows.tolist() for rows in other]


def test_texts_that_share_a_tag_are_found_across_batches() -> None:
    """Texts 0 {1, 2}, 1 {3}; of an earlier batch 2 {2}, 3 {4}, 4 {3, 1}."""
    one = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 3]), 2
    earlier = torch.tensor([0, 1, 2, 2]), torch.tensor([2, 4, 3, 1]), 3

    assert shared([one, earlier]).int().tolist() == [[1, 0, 1, 0, 1], [0, 1, 0, 0, 1]]
