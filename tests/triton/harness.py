"""Model repositories for the real tritonserver: the package's own without its warm-up, and models that are wrong."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient, model_config_pb2

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.release import MODEL, load_release
from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.child import reachable
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.recall.heads.model import MODEL as HEADS
from tagbus.stream.recall.tagvectors import FILE, TagVectors
from tests.cross_encoders import overlap, write_cross_encoder
from tests.releases import make_release

Found = TypeVar("Found")
Config = model_config_pb2.ModelConfig
# ONNX Runtime's name of each type that Triton names.
TYPES = {
    model_config_pb2.TYPE_INT32: "tensor(int32)",
    model_config_pb2.TYPE_INT64: "tensor(int64)",
    model_config_pb2.TYPE_FP16: "tensor(float16)",
    model_config_pb2.TYPE_FP32: "tensor(float)",
}


async def again(server: TritonServer, ask: Callable[[], Awaitable[Found]]) -> Found:
    """What it finds as soon as it is answered again.

    Triton below 2.53 may die of requests that were given up while it stood still (triton-inference-server/server#7368:
    1 of 25 times here). Then it is started again, as the one who runs it would.
    """
    async with asyncio.timeout(120):
        while True:
            with suppress(DependencyDown):
                return await ask()
            if not reachable(server.address):
                await asyncio.to_thread(server.restart)


def read_config(path: Path) -> Config:
    """A config.pbtxt as Triton reads it: an unknown field is an error."""
    return text_format.Parse(path.read_text(), Config())


def described(tensors: object) -> dict[str, tuple[str, list[int]]]:
    """Types and shapes that a configuration wants of the model, without the batch."""
    return {
        one.name: (TYPES[one.data_type], list(one.reshape.shape if one.HasField("reshape") else one.dims))
        for one in tensors  # type: ignore[attr-defined]
    }


def found(tensors: object) -> dict[str, tuple[str, list[int]]]:
    """Types and shapes of the model without its first axis, the batch; an axis without a number is -1."""
    return {
        one.name: (one.type, [axis if isinstance(axis, int) else -1 for axis in one.shape[1:]])
        for one in tensors  # type: ignore[attr-defined]
    }


def edit_config(repository: Path, model: str, change: Callable[[Config], None]) -> None:
    """A configuration that is changed, and has the name of its folder."""
    path = repository / model / "config.pbtxt"
    config = read_config(path)
    change(config)
    config.name = model
    path.write_text(text_format.MessageToString(config))


def copy_repository(target: Path, instances: int = 2) -> Path:
    """The package's repository with its models as links. Without warm-up a server is up in 3 s instead of 6.

    With one instance requests of several shapes at once take 0.5 s each: see test_repository.
    """
    source = default_repository()
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            linked(path, copy)

    def slim(config: Config) -> None:
        del config.model_warmup[:]
        config.instance_group[0].count = instances

    edit_config(target, "encoder", slim)
    return target


def linked(source: Path | str, target: Path | str) -> None:
    """A copy; a model's is a hard link where it can be one."""
    same = Path(source).stat().st_dev == Path(target).parent.stat().st_dev
    (os.link if Path(source).name == MODEL and same else shutil.copy)(source, target)


def add_stranger(repository: Path, name: str, dimension: int) -> None:
    """A model with the encoder's inputs that gives other vectors, or vectors of another dimension."""
    weights = np.random.default_rng(dimension).normal(size=(1, dimension)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["ids", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "weights"], ["sentence_embedding"]),
    ]
    shape = ["batch", "length"]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(one, TensorProto.INT64, shape) for one in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", dimension])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / MODEL)
    shutil.copy(repository / "encoder" / "config.pbtxt", folder.parent)

    def fit(config: Config) -> None:
        config.output[0].dims[:] = [dimension]
        config.instance_group[0].count = 1

    edit_config(repository, name, fit)


def copy_learnt(target: Path) -> Path:
    """The encoder and what is trained beside it, without warm-up.

    `second_encoder` and `cross_encoder` have models that need no training, the folder `ranker` is no model, and two are
    strangers: `other`, heads whose tags have other numbers, and `halved`, a cross-encoder with half of its scores.
    """
    source = default_repository()
    for name in ("heads", "ranker", "cross_encoder", "second_encoder"):
        shutil.copytree(source / name, target / name)
    write_cross_encoder(target / "cross_encoder" / "1", 96)
    shutil.copytree(source / "encoder", target / "encoder", copy_function=linked)
    make_release(target / "made", "other-1").rename(target / "second_encoder" / "1")
    (target / "made").rmdir()
    shutil.copytree(target / "cross_encoder", target / "halved")
    (target / "halved" / "1" / MODEL).write_bytes(overlap(share=0.5))
    shutil.copytree(target / "heads", target / "other")
    path = target / "other" / "1" / HEADS
    model = onnx.load(path)
    (table,) = [one for one in model.graph.initializer if one.name == "tags_table"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:, ::-1], table.name))
    onnx.save(model, path)

    def slim(config: Config) -> None:
        del config.model_warmup[:]

    for name in ("heads", "cross_encoder", "second_encoder", "other", "halved", "encoder"):
        edit_config(target, name, slim)
    return target


def write_tag_vectors(folder: Path, tags: Sequence[str] = ("bees", "law", "tea")) -> None:
    """What makes of an encoder's folder one of a second encoder: drawn vectors of some tags."""
    vectors = np.random.default_rng(0).normal(size=(len(tags), load_release(folder).dimension)).astype(np.float32)
    made = TagVectors(tuple(tags), vectors, np.zeros(len(tags), np.float32), 20.0)
    (folder / FILE).write_bytes(made.dump())


def settings(address: str, **changes: object) -> EncoderSettings:
    """Triton at that address, with a deadline that a busy machine keeps, and no cache unless it is asked for."""
    return EncoderSettings(kind="triton", address=address, **{"deadline_seconds": 60.0, "cache": 0, **changes})  # type: ignore[arg-type]


def requests(outcome: str, model: str = "encoder") -> float:
    """How many requests to a model this process has sent that ended so."""
    return REGISTRY.get_sample_value("tagbus_triton_requests_total", {"model": model, "outcome": outcome}) or 0.0


def executions(address: str, model: str = "encoder") -> int:
    """How many times the model was run since the server started."""
    with InferenceServerClient(address) as client:
        return int(client.get_inference_statistics(model).model_stats[0].execution_count)


def texts_seen(address: str, model: str = "encoder") -> int:
    """How many texts the model has answered since the server started, however they were merged."""
    with InferenceServerClient(address) as client:
        return int(client.get_inference_statistics(model).model_stats[0].inference_count)


def model_pids(server: int, model: str) -> list[int]:
    """The processes behind a model of the server with this pid, one for each instance (Linux only)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server and any(word.startswith(f"{model}_".encode()) for word in words):
                found.append(int(folder.name))
    return sorted(found)
