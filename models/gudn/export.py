"""The output of `tagbus train gudn` for the tagger and Triton: model.onnx, tokenizer.json and gudn.json.

The exported model reads the text alone: token ids and their mask to the best tags and their probabilities.
"""

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from tagbus.models.export.encoder import strip, to_float16, write
from tagbus.models.gudn.network import GuideNetwork
from tagbus.models.gudn.run import Texts
from tagbus.stream.encoder.release import MODEL, TOKENIZER, sha256
from tagbus.stream.encoder.tokens import TextReader
from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.recall.classifier.model import CHANCES, LENGTHS, TAGS, answer
from tagbus.stream.recall.gudn.model import MANIFEST, Manifest, golden_of, name_of, questions

# Tags returned per content, as many as a ranker reads of a list.
BEST: Final = 60
# Largest difference of a probability to torch, with float16 weights, of a model that is written.
MOST: Final = 5e-3


class Classifier(nn.Module):
    """The model to export: token ids to the numbers of the best tags and their probabilities."""

    def __init__(self, network: GuideNetwork, best: int) -> None:
        super().__init__()
        self.network = network
        self.best = best

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [n, length] twice, to int64 and float32 [n, best], best first."""
        logits = self.network.logits(input_ids, attention_mask.to(torch.float32))
        chances = logits.softmax(1) if self.network.plan.form.output == "softmax" else logits.sigmoid()
        best = chances.topk(self.best, dim=1)
        return best.indices, best.values


def export(network: GuideNetwork, texts: Texts, best: int, to: Path) -> Manifest:
    """Write the three files, each atomically. Raises ReleaseMismatch, and writes none, if the model is too far from
    torch."""
    classifier = Classifier(network.float().cpu().eval(), min(best, len(texts.ids))).eval()
    content = onnx_of(classifier)
    tokenizer = (Path(network.plan.base) / TOKENIZER).read_bytes()
    manifest = Manifest(
        name=name_of(content, tokenizer, texts.ids),
        max_tokens=network.plan.tokens,
        content_template="{title}\n{text}",
        best=classifier.best,
        model_sha256=sha256(content),
        tokenizer_sha256=sha256(tokenizer),
        fitted_on=len(texts.contents),
        tags=texts.ids,
    )
    reader = TextReader(Path(network.plan.base), manifest)
    compare(classifier, content, reader)
    manifest = manifest.model_copy(update={"golden": golden_of(content, reader)})
    about = manifest.model_dump_json(indent=2).encode() + b"\n"
    # The manifest last: it names the hashes of the others.
    for name, part in ((MODEL, content), (TOKENIZER, tokenizer), (MANIFEST, about)):
        write(to / name, part)
    return manifest


def onnx_of(classifier: Classifier) -> bytes:
    """The model with float16 weights; batch and length are dynamic."""
    feed = {
        "input_ids": torch.tensor([[101, 5, 102], [101, 102, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=LENGTHS[-1])}
    with warnings.catch_warnings():
        # Both inputs share their axes, as intended.
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        program = torch.onnx.export(
            classifier,
            tuple(feed.values()),
            dynamo=True,
            dynamic_shapes=dict.fromkeys(feed, axes),
            input_names=list(feed),
            output_names=[TAGS, CHANCES],
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    strip(proto)
    whole: bytes = to_float16(proto).SerializeToString(deterministic=True)
    onnx.checker.check_model(onnx.load_from_string(whole), full_check=True)
    return whole


def compare(classifier: Classifier, model: bytes, reader: TextReader) -> None:
    """Raises ReleaseMismatch if the probabilities of the golden texts are too far from torch."""
    for feed in questions(reader):
        with torch.no_grad():
            _, expected = classifier(*(torch.from_numpy(array) for array in feed.values()))
        _, found = answer(model, feed)
        # Negated, so that NaN fails too.
        if not (far := float(np.abs(found - expected.numpy()).max())) <= MOST:
            raise ReleaseMismatch(f"the exported model is too far from torch: {far:.1e} > {MOST:.0e}")
