"""Vectors that come through Triton are those of the process: real titles of every length, and several scripts."""

import asyncio
import json
import random
from collections import Counter

import numpy as np
import pytest

from tagbus.stream.app.data.examples import example
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.golden import TEXTS
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.encoder.tokens import TextReader
from tagbus.stream.encoder.triton import LENGTHS, cut
from tagbus.stream.errors import Untaggable
from tagbus.stream.local.triton import TritonServer
from tests.encoder.test_onnx import SCRIPTS
from tests.triton.conftest import Open
from tests.triton.harness import executions, requests

# The batch decides the order of the sums.
SAME = 1e-5
READER = TextReader(default_folder(), load_release(default_folder()))


def real_texts() -> list[str]:
    """1,000 texts: titles and texts of the examples, some joined to reach every length, and one of each script."""
    rows = [json.loads(line) for line in example("exemplars.jsonl").read_text().splitlines()]
    texts, titles = [row["text"] for row in rows], [row["title"] for row in rows]
    joined = [
        " ".join(some[start : start + size])
        for some, sizes in ((titles, (3, 4, 6)), (texts, (1, 2, 3, 6)))
        for size in sizes
        for start in range(0, 30 * size, size)
    ]
    return list(dict.fromkeys([*SCRIPTS.values(), *TEXTS, *joined, *titles]))[:1000]


def per_length(texts: list[str]) -> Counter[int]:
    counted: Counter[int] = Counter()
    for rows, length in cut([len(ids) for ids in READER.tokens(texts)], LENGTHS):
        counted[length] += len(rows)
    return counted


async def alone(encoder: Encoder, texts: list[str]) -> Vectors:
    return np.concatenate(await asyncio.gather(*(encoder.encode([text]) for text in texts)))


async def mixed(encoder: Encoder, texts: list[str]) -> Vectors:
    """In calls of 1 to 100 texts, shuffled, several at once."""
    order = list(range(len(texts)))
    draw = random.Random(0)  # noqa: S311 no secret
    draw.shuffle(order)
    calls = []
    while order:
        size = draw.randint(1, 100)
        calls.append(order[:size])
        order = order[size:]
    vectors = np.empty((len(texts), encoder.release.dimension), dtype=np.float32)
    for rows, found in zip(
        calls, await asyncio.gather(*(encoder.encode([texts[row] for row in rows]) for rows in calls)), strict=True
    ):
        vectors[rows] = found
    return vectors


async def test_a_thousand_real_texts_alone_and_in_mixed_batches(
    triton: TritonServer, open_encoder: Open, in_process: OnnxEncoder
) -> None:
    texts = real_texts()
    assert len(texts) == len(set(texts)) == 1000
    assert all(count >= 20 for count in per_length(texts).values())
    assert per_length(texts).keys() == set(LENGTHS)
    expected = await in_process.encode(texts)
    encoder = await open_encoder(triton.address)

    by_alone, by_mixed = await alone(encoder, texts), await mixed(encoder, texts)

    assert np.abs(by_alone - expected).max() < SAME
    assert np.abs(by_mixed - expected).max() < SAME


async def test_requests_of_equal_length_merge(triton: TritonServer, open_encoder: Open) -> None:
    encoder = await open_encoder(triton.address, in_flight=64)
    before = executions(triton.address)

    await asyncio.gather(*(encoder.encode([f"Fishing rights, volume {number}"]) for number in range(200)))

    assert executions(triton.address) - before < 100


async def test_what_the_cache_holds_is_not_asked_for(
    triton: TritonServer, open_encoder: Open, in_process: OnnxEncoder
) -> None:
    encoder = await open_encoder(triton.address, cache=100)
    first = await encoder.encode(TEXTS)
    # By the client's own count: the server may answer before it counts.
    answered = requests("answered")

    again = await encoder.encode([*reversed(TEXTS), "a new one"])

    assert requests("answered") - answered == 1
    np.testing.assert_array_equal(again[:-1], first[::-1])
    np.testing.assert_allclose(again[-1:], await in_process.encode(["a new one"]), atol=SAME)


async def test_no_texts_become_no_vectors(triton: TritonServer, open_encoder: Open) -> None:
    encoder: Encoder = await open_encoder(triton.address)
    assert (await encoder.encode([])).shape == (0, encoder.release.dimension)


async def test_a_text_that_is_no_unicode_is_refused_as_poison(triton: TritonServer, open_encoder: Open) -> None:
    encoder = await open_encoder(triton.address, cache=10)
    with pytest.raises(Untaggable, match="lone surrogate at character 1"):
        await encoder.encode(["Tea", "x\ud800"])


async def test_a_cancelled_call_leaves_the_encoder_usable(triton: TritonServer, open_encoder: Open) -> None:
    encoder = await open_encoder(triton.address, in_flight=2)
    call = asyncio.create_task(encoder.encode(TEXTS * 4))
    before = executions(triton.address)
    while executions(triton.address) == before:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await encoder.encode(["Tea"])).shape == (1, encoder.release.dimension)
