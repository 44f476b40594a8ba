"""The model repository is in step with the model, and says what production needs."""

from itertools import product
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from tagbus.stream.encoder.release import MODEL, default_folder, load_release
from tagbus.stream.encoder.triton import LENGTHS, REQUEST_TEXTS
from tagbus.stream.local.triton import default_cache, default_repository
from tagbus.stream.onnx_runtime import onnxruntime
from tests.triton.conftest import Start
from tests.triton.harness import TYPES, Config, described, found, read_config

REPOSITORY = default_repository()
RELEASE = load_release(default_folder())
CPU = read_config(REPOSITORY / "encoder/config.pbtxt")
GPU = read_config(REPOSITORY / "encoder/configs/tensorrt_fp16.pbtxt")
SECOND = read_config(REPOSITORY / "second_encoder/config.pbtxt")
TOKENIZE = read_config(REPOSITORY / "tokenize/config.pbtxt")
EMBED = read_config(REPOSITORY / "embed/config.pbtxt")
# Every configuration of the repository; its own is config.pbtxt, variants of it lie in configs/.
PATHS = sorted([*REPOSITORY.glob("*/config.pbtxt"), *REPOSITORY.glob("*/configs/*.pbtxt")])

# What the client of encoders asks.
encoders = pytest.mark.parametrize("config", [CPU, GPU, SECOND], ids=["cpu", "gpu", "second"])


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def model_of(path: Path) -> Path:
    """The folder of the model that a configuration describes."""
    return path.parent.parent if path.parent.name == "configs" else path.parent


def served() -> list[tuple[Path, Path]]:
    """Each configuration with the ONNX models that are there: those that are trained elsewhere need not be."""
    return [
        (path, model)
        for path in PATHS
        if (config := read_config(path)).backend == "onnxruntime"
        for model in sorted(model_of(path).glob(f"*/{config.default_model_filename or MODEL}"))
    ]


every = pytest.mark.parametrize("path", PATHS, ids=named)


@every
def test_the_folder_has_the_models_name(path: Path) -> None:
    assert read_config(path).name == model_of(path).name


@every
def test_it_serves_named_versions_and_its_queue_is_bounded(path: Path) -> None:
    config = read_config(path)
    assert list(config.version_policy.specific.versions), "a folder that appears is not served by itself"
    if config.platform == "ensemble":
        return
    policy = config.dynamic_batching.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.allow_timeout_override
    assert policy.default_timeout_microseconds > config.dynamic_batching.max_queue_delay_microseconds
    assert policy.max_queue_size > 0
    assert 1 < max(config.dynamic_batching.preferred_batch_size) <= config.max_batch_size


@every
def test_no_model_has_one_instance(path: Path) -> None:
    """With one, Triton's batcher sleeps for up to 0.5 s while requests of several shapes wait."""
    config = read_config(path)
    if config.backend == "onnxruntime":
        assert all(group.count > 1 for group in config.instance_group)


@pytest.mark.parametrize(("path", "model"), served(), ids=lambda one: named(one))
def test_every_model_takes_and_gives_what_its_configuration_says(path: Path, model: Path) -> None:
    """Names and types are equal; an axis has the model's number where the model has one. The first is the batch."""
    config = read_config(path)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for said, there in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        ours, theirs = described(said), found(there)
        assert ours.keys() == theirs.keys()
        for name, (kind, dims) in ours.items():
            assert kind == theirs[name][0]
            assert len(dims) == len(theirs[name][1])
            assert all(real in (-1, one) for one, real in zip(dims, theirs[name][1], strict=True))
        assert not any(isinstance(one.shape[0], int) for one in there), "the batch is dynamic"


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(default_folder() / MODEL, providers=["CPUExecutionProvider"])


@encoders
def test_names_shapes_and_types_are_the_models(config: Config, session: onnxruntime.InferenceSession) -> None:
    assert config.backend == "onnxruntime"
    assert described(config.input) == found(session.get_inputs())
    assert described(config.output) == found(session.get_outputs())
    assert list(config.output[0].dims) == [RELEASE.dimension]
    assert not isinstance(session.get_inputs()[0].shape[0], int), "the batch is dynamic"


@encoders
def test_a_request_of_the_client_fits(config: Config) -> None:
    assert config.max_batch_size >= REQUEST_TEXTS
    assert LENGTHS[-1] == RELEASE.max_tokens


def test_only_the_version_of_the_release_is_served() -> None:
    assert list(CPU.version_policy.specific.versions) == [int(default_folder().name)]


def test_the_gpu_variant_cannot_answer_for_the_release() -> None:
    assert set(GPU.version_policy.specific.versions).isdisjoint(CPU.version_policy.specific.versions)


@encoders
def test_each_length_is_warmed_with_the_least_and_the_largest_batch(config: Config) -> None:
    warmed = {(one.batch_size, *one.inputs["input_ids"].dims) for one in config.model_warmup}
    ends = {1, max(config.dynamic_batching.preferred_batch_size), config.max_batch_size}
    assert set(product(ends, LENGTHS)) <= warmed
    for one in config.model_warmup:
        assert {name: (TYPES[value.data_type]) for name, value in one.inputs.items()} == {
            tensor.name: TYPES[tensor.data_type] for tensor in config.input
        }
        assert len({tuple(value.dims) for value in one.inputs.values()}) == 1


@encoders
def test_it_loads_with_a_gpu_and_without(config: Config) -> None:
    assert [group.kind for group in config.instance_group] == [pb.ModelInstanceGroup.KIND_AUTO]


def shapes(parameters: dict[str, str], which: str) -> dict[str, tuple[int, ...]]:
    parts = (part.split(":") for part in parameters[f"trt_profile_{which}_shapes"].split(","))
    return {name: tuple(int(axis) for axis in axes.split("x")) for name, axes in parts}


def test_tensorrt_has_the_least_usual_and_largest_shape_of_each_input() -> None:
    (accelerator,) = GPU.optimization.execution_accelerators.gpu_execution_accelerator
    parameters = dict(accelerator.parameters)
    assert (accelerator.name, parameters["precision_mode"]) == ("tensorrt", "FP16")
    least, usual, largest = (shapes(parameters, which) for which in ("min", "opt", "max"))
    names = {one.name for one in GPU.input}
    assert least.keys() == usual.keys() == largest.keys() == names
    for name in names:
        assert least[name] == (1, LENGTHS[0])
        assert largest[name] == (GPU.max_batch_size, LENGTHS[-1])
        assert all(
            low <= middle <= high for low, middle, high in zip(least[name], usual[name], largest[name], strict=True)
        )


def test_the_ensemble_joins_tensors_of_one_type_and_shape_and_pins_its_versions() -> None:
    models = {config.name: config for config in (CPU, TOKENIZE)}
    version = int(default_folder().name)
    known = {one.name: one for one in EMBED.input}
    for step in EMBED.ensemble_scheduling.step:
        model = models[step.model_name]
        assert step.model_version == version
        assert version in model.version_policy.specific.versions
        inputs, outputs = ({one.name: one for one in tensors} for tensors in (model.input, model.output))
        assert step.input_map.keys() == inputs.keys()
        for name, joined in step.input_map.items():
            assert (known[joined].data_type, known[joined].dims) == (inputs[name].data_type, inputs[name].dims)
        known |= {joined: outputs[name] for name, joined in step.output_map.items()}
    for one in EMBED.output:
        assert (one.data_type, one.dims) == (known[one.name].data_type, known[one.name].dims)
    assert EMBED.max_batch_size == TOKENIZE.max_batch_size == CPU.max_batch_size


@pytest.mark.parametrize("config", [EMBED, TOKENIZE], ids=["embed", "tokenize"])
def test_the_ensembles_parts_have_the_version_folders_that_they_serve(config: Config) -> None:
    for version in config.version_policy.specific.versions:
        assert (REPOSITORY / config.name / str(version)).is_dir()


def test_a_local_server_leaves_nothing_in_the_home_directory(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a home of its own, when it has loaded its models, then ONNX Runtime has kept no device id there."""
    cache = default_cache()
    monkeypatch.setenv("HOME", str(tmp_path))
    start(cache=cache)
    assert list(tmp_path.iterdir()) == []
