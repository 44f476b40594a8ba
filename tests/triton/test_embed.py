"""The ensemble: raw strings in, the encoder's vectors out."""

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.golden import TEXTS
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.local.triton import TritonServer


def embed(address: str, texts: list[bytes]) -> Vectors:
    tensor = InferInput("text", [len(texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text] for text in texts], dtype=object))
    with InferenceServerClient(address) as client:
        vectors: Vectors = client.infer("embed", [tensor], model_version="1").as_numpy("sentence_embedding")
    return vectors


async def test_it_gives_the_vectors_of_the_process(triton: TritonServer, in_process: OnnxEncoder) -> None:
    """Which also holds its tokenizer to that of tagbus: marks, cuts and control characters are among the texts."""
    expected = await in_process.encode(TEXTS)
    texts = [text.encode() for text in TEXTS]
    together = np.concatenate([embed(triton.address, texts[:16]), embed(triton.address, texts[16:])])
    np.testing.assert_allclose(together, expected, atol=1e-5)
    np.testing.assert_allclose(embed(triton.address, [TEXTS[0].encode()]), expected[:1], atol=1e-5)


async def test_a_megabyte_has_a_vector(triton: TritonServer, in_process: OnnxEncoder) -> None:
    text = "word " * 200_000
    np.testing.assert_allclose(embed(triton.address, [text.encode()]), await in_process.encode([text]), atol=1e-5)


def test_bytes_that_are_no_utf8_are_refused(triton: TritonServer) -> None:
    with pytest.raises(InferenceServerException, match="expected UTF-8"):
        embed(triton.address, [b"\xff\xfe"])
