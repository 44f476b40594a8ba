"""Models: cut from a base, written and read again, with a projection, averaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from tagbus.models.data.texts import tokenizer
from tagbus.models.export.bert import WEIGHTS, Bert
from tagbus.models.train.whole.model import Trained, average, chosen, encode, follow, ridge, save
from tagbus.models.train.whole.rows import Rows
from tagbus.stream.errors import UserError

CPU = torch.device("cpu")
TEXTS = ["tea coffee milk", "football", "a choir and a boat on the water"]


@pytest.fixture(scope="module")
def rows(base: Path) -> Rows:
    return Rows.read([(text, [number]) for number, text in enumerate(TEXTS)], tokenizer(base, 16), lambda _: None)


def test_layers_are_cut_evenly() -> None:
    assert (chosen(6, 6), chosen(6, 3), chosen(6, 2)) == ([0, 1, 2, 3, 4, 5], [0, 2, 4], [0, 3])
    with pytest.raises(UserError, match="--layers: 7 is wrong, expected 1 to 6"):
        chosen(6, 7)


def test_uncut_and_untrained_it_is_the_base(base: Path, rows: Rows) -> None:
    model = Trained(base, [0, 1], 32, 0)
    batch = rows.batch(np.arange(3), CPU)
    with torch.no_grad():
        expected = Bert(base)(batch.ids, batch.mask.long())
    torch.testing.assert_close(encode(model.vectors, rows, CPU), expected)


@pytest.mark.parametrize("kept", [[0, 1], [1]])
def test_what_is_written_gives_the_same_vectors(base: Path, rows: Rows, kept: list[int], tmp_path: Path) -> None:
    """By this project's reader and by sentence-transformers, also after training has moved every weight."""
    model = Trained(base, kept, 32, 3)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)

    save(model, ["a", "b", "c"], base, kept, tmp_path / "layers")

    again = Trained(tmp_path / "layers", range(len(kept)), 32, 0)
    found = encode(model.vectors, rows, CPU)
    torch.testing.assert_close(encode(again.vectors, rows, CPU), found, atol=1e-5, rtol=0)
    theirs = SentenceTransformer(str(tmp_path / "layers"), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(theirs, found.numpy(), atol=1e-5)


def test_position_numbers_in_a_file_of_weights_are_no_weights(base: Path, rows: Rows, tmp_path: Path) -> None:
    """As older files have them, that of the packaged encoder among these."""
    shutil.copytree(base, tmp_path / "older")
    weights = load_file(base / WEIGHTS) | {"embeddings.position_ids": torch.arange(64)[None]}
    save_file(weights, tmp_path / "older" / WEIGHTS, metadata={"format": "pt"})

    model = Trained(tmp_path / "older", [0, 1], 32, 0)

    expected = Trained(base, [0, 1], 32, 0)
    torch.testing.assert_close(encode(model.vectors, rows, CPU), encode(expected.vectors, rows, CPU))
    save(model, [], tmp_path / "older", [0, 1], tmp_path / "layers")
    assert load_file(tmp_path / "layers" / WEIGHTS).keys() == load_file(base / WEIGHTS).keys()


def test_word_embeddings_stay(base: Path) -> None:
    assert "embeddings_word_embeddings_weight" not in dict(Trained(base, [0], 32, 0).named_parameters())


def test_tag_vectors_start_at_the_vectors_of_their_texts(base: Path, rows: Rows) -> None:
    model = Trained(base, [0, 1], 32, 3)
    model.start(rows)
    torch.testing.assert_close(model.tags.data, encode(model.vectors, rows, CPU))


def test_a_projection_starts_where_the_students_are(base: Path) -> None:
    """Given a teacher of another width, its vectors of the tags' texts begin near the students'."""
    words = [f"{one} {other}" for one in TEXTS for other in ("tea", "dog", "tower", "song", "ski")]
    names = Rows.read([(text, [number]) for number, text in enumerate(words)], tokenizer(base, 16), lambda _: None)
    toward = torch.nn.functional.normalize(torch.randn(len(words), 8), dim=1)
    teacher = Trained(base, [0, 1], 8, len(words))
    teacher.start(names, toward)
    assert teacher.tags.shape == (len(words), 8)
    assert float((teacher.tags.data * toward).sum(1).mean()) > 0.8


def test_ridge_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    known, true = torch.randn(4000, 5), torch.randn(5, 3)
    weight, offset = ridge(known, known @ true + 2)
    torch.testing.assert_close(weight, true, atol=0.05, rtol=0)
    torch.testing.assert_close(offset, torch.full((3,), 2.0), atol=0.05, rtol=0)


def test_the_average_follows(base: Path) -> None:
    model = Trained(base, [0], 32, 2)
    mean = average(model)
    with torch.no_grad():
        model.tags += 1
    follow(mean, model, 0.75)
    torch.testing.assert_close(mean.tags.data, torch.full((2, 32), 0.25))
    assert not any(weight.requires_grad for weight in mean.parameters())
