"""Training the encoder on a toy set: it reaches the known optimum, resumes, and is exported."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tagbus.models.data.corpus import WithoutTags, open_corpus, select
from tagbus.models.data.truth import Truth
from tagbus.models.export.encoder import export
from tagbus.models.train import biencoder, top_layers
from tagbus.models.train.pairs import PairLoss, last_checkpoint
from tagbus.models.train.plan import begin
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.errors import UserError
from tagbus.stream.recall.tagvectors import FILE, TagVectors
from tests.models.toy import journal, write

pytestmark = pytest.mark.usefixtures("one_thread")


async def test_an_encoder_learns_the_toy_set_and_is_exported(base: Path, corpus: Path, tmp_path: Path) -> None:
    """Given tag names unrelated to the words, when trained for a round, then each content's best tag is right, and the
    exported encoder gives the same vectors."""
    plan = biencoder.Plan(corpus=str(corpus), base=str(base), batch=6, rounds=1, rate=3e-3, negatives=2, cluster=3)
    biencoder.train(open_corpus(str(corpus)), plan, tmp_path / "run")

    lines = [line for line in journal(tmp_path / "run") if "round" in line]
    assert lines[0]["by_text_p_at_1"] < 60
    assert lines[-1]["by_text_p_at_1"] > 95
    assert lines[-1]["cpu_seconds_per_1000_pairs"] > 0
    assert (tmp_path / "run" / "plan.json").exists()

    texts = ["tea coffee milk", "football", "a choir and a boat on the water"]
    export(tmp_path / "1", "float32", "toy-1", tmp_path / "run")
    encoder = OnnxEncoder(tmp_path / "1")
    try:
        found = await encoder.encode(texts)
    finally:
        await encoder.close()
    expected = SentenceTransformer(str(tmp_path / "run"), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_training_that_diverges_is_told(base: Path, corpus: Path, tmp_path: Path) -> None:
    """Given no validation contents too, and a learning rate that is far too high."""
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    write(folder / "train.jsonl", [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()[:18]])
    write(folder / "val.jsonl", [])
    plan = biencoder.Plan(corpus=str(folder), base=str(base), batch=6, rounds=1, rate=1e30, negatives=2, cluster=3)
    with pytest.raises(UserError, match="loss is nan, so the training has diverged: take a lower learning rate"):
        biencoder.train(open_corpus(str(folder)), plan, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_top_layers_that_diverge_are_told(base: Path, corpus: Path, tmp_path: Path) -> None:
    made = top_layers_plan(corpus, 1).model_copy(update={"rate": 1e30})
    with pytest.raises(UserError, match="the loss softmax is nan, so the training has diverged"):
        top_layers.train(open_corpus(str(corpus)), made, base, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_checkpoint_that_was_cut_off_is_not_resumed_from(tmp_path: Path) -> None:
    """Given a process killed while it wrote its second checkpoint, then the first one is the last."""
    for name, files in {
        "checkpoint-500": ("model.safetensors", "trainer_state.json"),
        "checkpoint-1000": ("m",),
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-500")


def top_layers_plan(corpus: Path, epochs: int) -> top_layers.Plan:
    return top_layers.Plan(corpus=str(corpus), batch=16, epochs=epochs, rate=1e-2, tag_rate=0.02, dropout=0)


def test_the_upper_layers_learn_the_toy_set(base: Path, corpus: Path, tmp_path: Path) -> None:
    top_layers.train(open_corpus(str(corpus)), top_layers_plan(corpus, 20), base, tmp_path)

    found = TagVectors.parse(tmp_path, (tmp_path / FILE).read_bytes())
    assert found.ids == tuple(tag.id for tag in open_corpus(str(corpus)).tags())
    lines = [line for line in journal(tmp_path) if "epoch" in line]
    assert lines[0]["p_at_1"] < 60
    assert lines[-1]["p_at_1"] > 90
    assert lines[-1]["by_text_p_at_1"] > 80

    export(tmp_path / "1", "float32", "toy-1", tmp_path)
    exported = TagVectors.parse(tmp_path, (tmp_path / "1" / FILE).read_bytes())
    assert (exported.ids, exported.release) == (found.ids, "toy-1")
    assert np.array_equal(exported.vectors, found.vectors)
    assert journal(tmp_path / "1") == journal(tmp_path)


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a run killed after 7 steps, when it is resumed, then its weights equal those of an uninterrupted run."""
    monkeypatch.setattr(top_layers, "SAVE_STEPS", 5)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    top_layers.train(open_corpus(str(corpus)), top_layers_plan(corpus, 2), base, whole)

    step, steps = top_layers._step, []

    def killed(*arguments: object) -> tuple[float, int]:
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(1)
        return step(*arguments)

    monkeypatch.setattr(top_layers, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        top_layers.train(open_corpus(str(corpus)), top_layers_plan(corpus, 2), base, cut)
    monkeypatch.setattr(top_layers, "_step", step)
    top_layers.train(open_corpus(str(corpus)), top_layers_plan(corpus, 2), base, cut)

    for name in ("model.safetensors", "plan.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()


@pytest.mark.parametrize("val", [[], [{"id": "v", "text": "tea", "accepted": []}]], ids=["none", "without a tag"])
def test_without_contents_to_measure_on_it_trains_all_the_same(
    base: Path, corpus: Path, tmp_path: Path, val: list[dict[str, object]]
) -> None:
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    write(folder / "val.jsonl", val)
    top_layers.train(open_corpus(str(folder)), top_layers_plan(folder, 1), base, tmp_path / "run")
    assert (tmp_path / "run" / FILE).exists()
    assert not any("p_at_1" in line for line in journal(tmp_path / "run"))


def test_texts_longer_than_the_encoder_reads_are_refused(base: Path, corpus: Path, tmp_path: Path) -> None:
    known = open_corpus(str(corpus))
    with pytest.raises(UserError, match="--tokens: 65 is wrong, expected at most 64"):
        top_layers.train(known, top_layers.Plan(corpus="c", tokens=65), base, tmp_path)
    with pytest.raises(UserError, match="--tokens: 65 is wrong, expected at most 64"):
        biencoder.train(known, biencoder.Plan(corpus="c", base=str(base), tokens=65), tmp_path)


def test_a_folder_of_another_plan_is_refused(base: Path, corpus: Path, tmp_path: Path) -> None:
    begin(tmp_path, top_layers_plan(corpus, 1))
    with pytest.raises(UserError, match="is of another run: use another --out"):
        top_layers.train(open_corpus(str(corpus)), top_layers_plan(corpus, 2), base, tmp_path)


def test_tags_that_are_left_out_are_nowhere(corpus: Path) -> None:
    left = WithoutTags(open_corpus(str(corpus)), frozenset({"music"}))
    assert "music" not in {tag.id for tag in left.tags()}
    items = list(left.exemplars("train"))
    assert items
    assert all(item.accepted and "music" not in item.accepted for item in items)
    with pytest.raises(UserError, match="cannot leave out 'jazz': the corpus has no such tag"):
        WithoutTags(open_corpus(str(corpus)), frozenset({"jazz"})).tags()


def test_the_first_contents_are_another_run(corpus: Path) -> None:
    """All tags and held-out contents stay, so that figures are comparable."""
    whole = open_corpus(str(corpus))
    part, name = select(str(corpus), None, 3)
    assert list(part.exemplars("train")) == list(whole.exemplars("train"))[:3]
    assert list(part.exemplars("val")) == list(whole.exemplars("val")) != []
    assert part.tags() == whole.tags()
    assert name == f"{corpus}, the first 3 contents"


def test_what_is_right_in_a_batch() -> None:
    """By the numbers of contents and tags, not by their texts."""
    truth = Truth.of([[0, 2], [1], [2, 3]])
    loss = PairLoss(torch.nn.Identity(), truth, 4, "contrastive", "masked")
    contents, tags = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 2, 3, 2])
    assert loss.right(contents, tags).int().tolist() == [[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 0, 0, 0]]
    assert loss.shared(contents).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
