"""Model repositories for the real tritonserver: the package's own without its warm-up, and models that are wrong."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
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
from tagbus.stream.encoder.release import MODEL
from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.child import reachable
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.recall.heads.model import MODEL as HEADS
from tests.cross_encoders import write_cross_encoder

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
    async with asyncio.timeout(30):
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
    path = repository / model / "config.pbtxt"
    config = read_config(path)
    change(config)
    path.write_text(text_format.MessageToString(config))


def copy_repository(target: Path, instances: int = 2) -> Path:
    """The package's repository with models as hard links. Without warm-up a server is up in 3 s instead of 6.

    With one instance requests of several shapes at once take 0.5 s each: see test_repository.
    """
    source = default_repository()
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            (os.link if path.name == MODEL and same_device(path, target) else shutil.copy)(path, copy)

    def slim(config: Config) -> None:
        del config.model_warmup[:]
        config.instance_group[0].count = instances

    edit_config(target, "encoder", slim)
    return target


def same_device(path: Path, target: Path) -> bool:
    return path.stat().st_dev == target.stat().st_dev


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

    def rename(config: Config) -> None:
        config.name = name
        config.output[0].dims[:] = [dimension]
        config.instance_group[0].count = 1

    edit_config(repository, name, rename)


def copy_learnt(target: Path) -> Path:
    """What is trained beside the encoder, without warm-up: `heads`, `cross_encoder` with a model that needs no
    training, the
    folder `ranker` that is no model, and a stranger `other`, heads whose tags have other numbers."""
    source = default_repository()
    for name in ("heads", "ranker", "cross_encoder"):
        shutil.copytree(source / name, target / name)
    write_cross_encoder(target / "cross_encoder" / "1")
    shutil.copytree(target / "heads", target / "other")
    path = target / "other" / "1" / HEADS
    model = onnx.load(path)
    (table,) = [one for one in model.graph.initializer if one.name == "tags_table"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:, ::-1], table.name))
    onnx.save(model, path)

    def slim(config: Config) -> None:
        del config.model_warmup[:]

    for name in ("heads", "cross_encoder", "other"):
        edit_config(target, name, slim)
    edit_config(target, "other", lambda config: setattr(config, "name", "other"))
    return target


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
