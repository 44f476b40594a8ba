"""The cross-encoder on a toy set: right pairs above wrong ones, and an export that gives what torch gives."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from sentence_transformers import CrossEncoder

from tagbus.models import crossencoder
from tagbus.models.bert import weights_folder
from tagbus.models.data import open_corpus
from tagbus.stream.encoder.release import default_folder, sha256
from tests.models.toy import toy_corpus


async def test_the_pairs_are_those_of_the_paper(tmp_path: Path) -> None:
    """Each right pair once, then its wrong ones, which are wrong."""
    corpus = open_corpus(str(toy_corpus(tmp_path)))
    plan = crossencoder.Plan(corpus="toy", base="", encoder=str(default_folder()), negatives=2, most=30)
    found = await crossencoder.labelled(corpus, plan)
    right = {item_text: set(tags) for item_text, tags in ((e.text, e.accepted) for e in corpus.exemplars("train"))}
    pairs = list(zip(found["tag"], found["content"], found["label"], strict=True))
    assert len(pairs) == 3 * sum(label == 1 for *_, label in pairs)
    assert all((tag in right[str(content)]) == (label == 1) for tag, content, label in pairs)


def test_a_cross_encoder_learns_the_toy_set_and_is_exported(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    # The toy encoder, random as it is, does not learn to compare two texts in seconds.
    base, corpus = weights_folder(), toy_corpus(tmp_path / "corpus")
    plan = crossencoder.Plan(
        corpus=str(corpus), base=str(base), encoder=str(default_folder()), negatives=2, batch=16, rate=2e-4, most=60
    )
    out = tmp_path / "out"
    crossencoder.train(open_corpus(str(corpus)), plan, out)

    pairs = [("animals", "dog cat horse"), ("animals", "car bus train"), ("vehicles", "car bus train")]
    model = CrossEncoder(str(out), device="cpu", max_length=96)
    expected = model.predict(pairs)
    assert expected[0] > expected[1]
    assert expected[2] > expected[1]
    feed = model.tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["score"], {name: array.astype(np.int64) for name, array in feed.items()})[0]
    np.testing.assert_allclose(found, expected, atol=crossencoder.MOST)
    said = json.loads((out / "reranker.json").read_text())
    assert said["model_sha256"] == sha256((out / "model.onnx").read_bytes())
