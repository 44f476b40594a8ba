"""A guided classifier that needs no training: a tag for each token of the text, written as ONNX by hand."""

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tagbus.stream.encoder.release import MODEL, TOKENIZER, default_folder, sha256
from tagbus.stream.encoder.tokens import TextReader
from tagbus.stream.recall.classifier.model import CHANCES, TAGS
from tagbus.stream.recall.gudn.model import MANIFEST, Manifest, golden_of, name_of

# Tag number n has the most of tokens that leave n when they are divided by their number.
KNOWN: Final = tuple(f"t{number}" for number in range(70))


def graph(best: int, seed: int = 0) -> bytes:
    """Token ids and their mask to the best tags, as an export has them; another seed means other tags."""
    weights = np.random.default_rng(seed).permutation(len(KNOWN)).astype(np.int64)
    ids = ("batch", "length")
    nodes = [
        helper.make_node("Mod", ["input_ids", "tags_count"], ["number"]),
        helper.make_node("Gather", ["order", "number"], ["moved"]),
        helper.make_node("OneHot", ["moved", "tags_count", "off_on"], ["hot"], axis=-1),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["hot", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["every"], axis=-1),
        helper.make_node("TopK", ["every", "best"], [CHANCES, TAGS], axis=-1),
    ]
    constants = {
        "tags_count": np.array(len(KNOWN)),
        "order": weights,
        "off_on": np.array([0, 1], np.float32),
        "last": np.array([2]),
        "middle": np.array([1]),
        "best": np.array([best]),
    }
    made = helper.make_graph(
        nodes,
        "gudn",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ids) for name in ("input_ids", "attention_mask")],
        [
            helper.make_tensor_value_info(TAGS, TensorProto.INT64, ["batch", best]),
            helper.make_tensor_value_info(CHANCES, TensorProto.FLOAT, ["batch", best]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def write_gudn(folder: Path, best: int = 60, seed: int = 0) -> Path:
    """A folder as `tagbus train gudn` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = graph(best, seed), (default_folder() / TOKENIZER).read_bytes()
    manifest = Manifest(
        name=name_of(model, tokenizer, KNOWN),
        max_tokens=64,
        content_template="{title}\n{text}",
        best=best,
        model_sha256=sha256(model),
        tokenizer_sha256=sha256(tokenizer),
        fitted_on=10,
        tags=KNOWN,
    )
    (folder / MODEL).write_bytes(model)
    (folder / TOKENIZER).write_bytes(tokenizer)
    golden = golden_of(model, TextReader(folder, manifest))
    (folder / MANIFEST).write_text(manifest.model_copy(update={"golden": golden}).model_dump_json())
    return folder
