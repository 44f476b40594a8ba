"""A cross-encoder that needs no training: the share of a tag's words that stand in the content, as an ONNX graph.

As a trained one does, it fails on a token that its vocabulary does not have.
"""

from pathlib import Path
from typing import Final

import pytest

from tagbus.stream.encoder.release import MODEL, TOKENIZER, default_folder, sha256
from tagbus.stream.rank.cross_encoder.model import MANIFEST, OUTPUT, Manifest, golden_of, name_of
from tagbus.stream.rank.cross_encoder.pairs import INPUTS

# Ids up to here are [CLS], [SEP] and unused places of BERT's vocabulary.
SPECIAL: Final = 998
VOCABULARY: Final = 30_522


def overlap(share: float = 1.0) -> bytes:
    """ids, mask and types int64 [n, length] to float32 [n], `share` where all words of the tag stand there."""
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra train, makes the model that the cross-encoder runs")
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor
    float_, long = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    ids, mask, types = INPUTS
    nodes = [
        node("Greater", [ids, "special"], ["word"]),
        node("Cast", ["word"], ["words"], to=long),
        node("Gather", ["vocabulary", ids], ["known"]),
        node("Mul", ["words", "known"], ["read"]),
        node("Mul", ["read", mask], ["there"]),
        node("Mul", ["there", types], ["content"]),
        node("Sub", ["there", "content"], ["tag"]),
        node("Unsqueeze", [ids, "last"], ["down"]),
        node("Unsqueeze", [ids, "first"], ["across"]),
        node("Equal", ["down", "across"], ["equal"]),
        node("Cast", ["equal"], ["same"], to=long),
        node("Unsqueeze", ["content", "first"], ["among"]),
        node("Mul", ["same", "among"], ["found"]),
        node("ReduceMax", ["found"], ["stands"], axes=[2], keepdims=0),
        node("Mul", ["stands", "tag"], ["hits"]),
        node("ReduceSum", ["hits", "first"], ["hit"], keepdims=0),
        node("ReduceSum", ["tag", "first"], ["size"], keepdims=0),
        node("Max", ["size", "first"], ["least"]),
        node("Cast", ["hit"], ["above"], to=float_),
        node("Cast", ["least"], ["below"], to=float_),
        node("Div", ["above", "below"], ["part"]),
        node("Mul", ["part", "most"], [OUTPUT]),
    ]
    constants = [
        tensor("special", long, [], [SPECIAL]),
        tensor("first", long, [1], [1]),
        tensor("last", long, [1], [2]),
        tensor("vocabulary", long, [VOCABULARY], [1] * VOCABULARY),
        tensor("most", float_, [], [share]),
    ]
    inputs = [onnx.helper.make_tensor_value_info(name, long, ["n", "length"]) for name in INPUTS]
    outputs = [onnx.helper.make_tensor_value_info(OUTPUT, float_, ["n"])]
    graph = onnx.helper.make_graph(nodes, "overlap", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def write_cross_encoder(folder: Path, tokens: int = 32) -> Manifest:
    """Its folder, with the tokenizer of the shipped encoder."""
    model, tokenizer = overlap(), (default_folder() / TOKENIZER).read_bytes()
    manifest = Manifest(
        name=name_of(model, tokenizer),
        encoder="r1",
        max_tokens=tokens,
        content_template="{title}\n{text}",
        tag_template="{name}\n{aliases}",
        model_sha256=sha256(model),
        tokenizer_sha256=sha256(tokenizer),
    )
    manifest = manifest.model_copy(update={"golden": golden_of(manifest, model, tokenizer.decode())})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(model)
    (folder / TOKENIZER).write_bytes(tokenizer)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return manifest
