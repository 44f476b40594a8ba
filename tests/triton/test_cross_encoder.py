"""The cross-encoder's configuration on a real tritonserver, with a model that needs no training."""

from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient, InferInput

from tagbus.stream.encoder.release import MODEL, TOKENIZER
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.rank.cross_encoder import INPUTS, OUTPUT
from tests.triton.harness import described, found, read_config

CONFIG = read_config(default_repository() / "cross_encoder" / "config.pbtxt")
PAIRS = [("tea", "A history of tea"), ("soil", "Tea"), ("fishing rights", "Fishing rights in the Baltic Sea")]


def test_names_shapes_and_types_are_the_taggers(learnt_repository: Path) -> None:
    session = onnxruntime.InferenceSession(learnt_repository / "cross_encoder" / "1" / MODEL)
    assert described(CONFIG.input) == found(session.get_inputs())
    assert described(CONFIG.output) == found(session.get_outputs())
    assert [one.name for one in CONFIG.input] == list(INPUTS)
    assert [one.name for one in CONFIG.output] == [OUTPUT]


def test_each_length_is_warmed_with_the_least_the_usual_and_the_largest_batch() -> None:
    warmed = {(one.batch_size, *one.inputs[INPUTS[0]].dims) for one in CONFIG.model_warmup}
    ends = {1, max(CONFIG.dynamic_batching.preferred_batch_size), CONFIG.max_batch_size}
    assert warmed == {(batch, length) for batch in ends for length in (32, 64, 96)}
    for one in CONFIG.model_warmup:
        assert one.inputs.keys() == set(INPUTS)


def test_triton_gives_what_the_process_gives(learnt: TritonServer, learnt_repository: Path) -> None:
    folder = learnt_repository / "cross_encoder" / "1"
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.enable_padding(length=32)
    tokens = tokenizer.encode_batch(PAIRS)
    columns = ([one.ids for one in tokens], [one.attention_mask for one in tokens], [one.type_ids for one in tokens])
    feed = {name: np.array(column) for name, column in zip(INPUTS, columns, strict=True)}
    (expected,) = onnxruntime.InferenceSession(folder / MODEL).run([OUTPUT], feed)

    inputs = []
    for name, values in feed.items():
        inputs.append(InferInput(name, list(values.shape), "INT64"))
        inputs[-1].set_data_from_numpy(values)
    with InferenceServerClient(learnt.address) as client:
        scores = client.infer("cross_encoder", inputs, model_version="1").as_numpy(OUTPUT)

    assert expected.tolist() == [1, 0, 1]
    np.testing.assert_allclose(scores, expected[:, None], atol=1e-6)


def test_a_folder_that_is_no_model_disturbs_nobody(learnt: TritonServer) -> None:
    """`ranker` has no configuration, because the worker alone reads it."""
    with InferenceServerClient(learnt.address) as client:
        states = {one.name: one.state for one in client.get_model_repository_index().models}
        assert client.is_server_ready()
    assert states["heads"] == states["cross_encoder"] == "READY"
    assert states.get("ranker", "") != "READY"
