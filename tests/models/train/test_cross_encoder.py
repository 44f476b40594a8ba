"""The cross-encoder on a toy set: right pairs score above wrong ones, and the export equals torch."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from tagbus.models.data.corpus import FirstContents, open_corpus
from tagbus.models.export.bert import weights_folder
from tagbus.models.train import cross_encoder
from tagbus.stream.encoder.release import MODEL, default_folder, load_release, sha256
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.onnx_runtime import onnxruntime
from tagbus.stream.rank.cross_encoder.model import OnnxCrossEncoder, name_of, read_manifest
from tests.models.toy import toy_corpus
from tests.triton.harness import described, found, read_config


async def test_the_pairs_are_those_of_the_paper(tmp_path: Path) -> None:
    """Each right pair once, followed by its wrong ones."""
    corpus = FirstContents(open_corpus(str(toy_corpus(tmp_path))), 30)
    plan = cross_encoder.Plan(corpus="toy", base="", encoder=str(default_folder()), negatives=2)
    found = await cross_encoder.labelled(corpus, plan)
    right = {item_text: set(tags) for item_text, tags in ((e.text, e.accepted) for e in corpus.exemplars("train"))}
    pairs = list(zip(found["tag"], found["content"], found["label"], strict=True))
    assert len(pairs) == 3 * sum(label == 1 for *_, label in pairs)
    assert all((tag in right[str(content)]) == (label == 1) for tag, content, label in pairs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cross_encoder")
    # The random toy encoder does not learn to compare two texts within seconds.
    base, corpus = weights_folder(), toy_corpus(folder / "corpus")
    plan = cross_encoder.Plan(
        corpus=str(corpus), base=str(base), encoder=str(default_folder()), negatives=2, batch=16, rate=2e-4
    )
    cross_encoder.train(FirstContents(open_corpus(str(corpus)), 60), plan, folder / "out")
    return folder / "out"


def test_a_training_that_diverges_is_told(tmp_path: Path) -> None:
    base, corpus = weights_folder(), toy_corpus(tmp_path / "corpus")
    plan = cross_encoder.Plan(
        corpus=str(corpus), base=str(base), encoder=str(default_folder()), negatives=2, batch=16, rate=1e30
    )
    with pytest.raises(UserError, match=r"the loss .*is nan, so the training has diverged"):
        cross_encoder.train(FirstContents(open_corpus(str(corpus)), 30), plan, tmp_path / "out")
    assert not (tmp_path / "out" / MODEL).exists()


LONG = "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands. " * 12
PAIRS = [
    ("animals", "dog cat horse"),
    ("animals", "car bus train"),
    ("vehicles", "car bus train"),
    ("Finnish language\nsuomi", "Vesistöjen rehevöityminen"),
    ("peatlands", LONG),
    (LONG, "peatlands"),
    ("図書館", ""),
]


def test_a_cross_encoder_learns_the_toy_set(trained: Path) -> None:
    scores = CrossEncoder(str(trained), device="cpu", max_length=96).predict(PAIRS)

    assert scores[0] > scores[1]
    assert scores[2] > scores[1]


def test_the_tagger_reads_as_torch_does(trained: Path) -> None:
    """Given pairs of various lengths, alone and in a batch, then the export gives torch's scores."""
    expected = CrossEncoder(str(trained), device="cpu", max_length=96).predict(PAIRS)
    cross_encoder = OnnxCrossEncoder.load(trained, 1)

    together = cross_encoder.score(PAIRS)
    alone = np.concatenate([cross_encoder.score([pair]) for pair in PAIRS])
    asyncio.run(cross_encoder.close())

    np.testing.assert_allclose(together, expected, atol=1e-3)
    np.testing.assert_allclose(alone, expected, atol=1e-3)


def test_the_manifest_names_what_was_exported(trained: Path) -> None:
    said = read_manifest(trained)

    assert said.model_sha256 == sha256((trained / "model.onnx").read_bytes())
    assert said.name == name_of((trained / "model.onnx").read_bytes(), (trained / "tokenizer.json").read_bytes())
    assert (said.encoder, said.max_tokens) == (load_release(default_folder()).name, 96)


def test_a_server_is_known_by_the_scores_of_what_was_exported(trained: Path) -> None:
    said = read_manifest(trained)
    assert said.golden is not None
    made = OnnxCrossEncoder.load(trained, 1)

    scores = made.score(said.golden.pairs)
    asyncio.run(made.close())

    said.golden.check(scores, said.name, "here")
    with pytest.raises(ReleaseMismatch, match=f"there is not {said.name}"):
        said.golden.check(scores[::-1], said.name, "there")


def test_tritons_configuration_is_that_of_what_was_exported(trained: Path) -> None:
    config = read_config(default_folder().parents[1] / "cross_encoder" / "config.pbtxt")
    session = onnxruntime.InferenceSession(trained / MODEL, providers=["CPUExecutionProvider"])
    assert described(config.input) == found(session.get_inputs())
    assert described(config.output) == found(session.get_outputs())
    assert not any(isinstance(one.shape[0], int) for one in (*session.get_inputs(), *session.get_outputs()))
