"""A model that gives tag numbers with their probabilities, and the runs that texts are cut into."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.onnx_runtime import InferenceSession, SessionOptions
from tagbus.stream.recall.classifier.golden import Chances, Numbers

# Its outputs.
TAGS: Final = "tags"
CHANCES: Final = "chances"
# Padded lengths of what a text is: Triton batches only requests of equal shape. A title of YSO has 19 terms.
LENGTHS: Final = (8, 16, 32, 64, 128, 256, 512)
# A run takes 64 contents or 2,048 terms or tokens; terms' vectors are 3 MB of float32.
CONTENTS: Final = 64
RUN_TERMS: Final = 2_048

Feed = Mapping[str, NDArray[np.int64] | NDArray[np.float32]]


class Model(Protocol):
    """Runs a classifier: in-process, or on a server."""

    async def run(self, feed: Feed) -> tuple[Numbers, Chances]:
        """The best tags [n, best] of n contents, best first, for the inputs of the model by name.

        Raises DependencyDown if a server does not answer.
        """

    async def close(self) -> None:
        """Free resources. No call may be in flight."""


class OnnxModel:
    """The model in-process. Several calls may run concurrently."""

    def __init__(self, model: bytes, threads: int, name: str) -> None:
        """`name` is that of the threads."""
        self._session = _session(model)
        self._pool = ThreadPoolExecutor(threads, name)

    async def run(self, feed: Feed) -> tuple[Numbers, Chances]:
        """See `Model`."""
        loop = asyncio.get_running_loop()
        numbers, chances = await loop.run_in_executor(self._pool, self._session.run, [TAGS, CHANCES], dict(feed))
        return numbers, chances

    async def close(self) -> None:
        """Stop the threads. No call may be in flight."""
        await asyncio.to_thread(self._pool.shutdown)


def answer(model: bytes, feed: Feed) -> tuple[Numbers, Chances]:
    """The answer of a model to one feed, once."""
    numbers, chances = _session(model).run([TAGS, CHANCES], dict(feed))
    return numbers, chances


async def listed(
    model: Model, tags: NDArray[np.object_], lengths: NDArray[np.int64], feed: Callable[[Numbers, int], Feed]
) -> list[Mapping[str, float]]:
    """The ids of the best tags of each content with their probabilities, best first.

    `tags` are the ids by number, `lengths` those of the contents; `feed` makes a run of some rows, padded to a length.
    """
    found: list[Mapping[str, float]] = [{} for _ in lengths]

    async def part(rows: Numbers, length: int) -> None:
        numbers, chances = await model.run(feed(rows, length))
        named = tags[numbers].tolist()
        for row, ids, values in zip(rows.tolist(), named, chances.tolist(), strict=True):
            found[row] = dict(zip(ids, values, strict=True))

    parts = [asyncio.create_task(part(rows, length)) for rows, length in cut(lengths)]
    try:
        await asyncio.gather(*parts)
    finally:
        for task in parts:
            task.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
    return found


def cut(lengths: NDArray[np.int64]) -> Iterator[tuple[Numbers, int]]:
    """Group contents of these lengths, at most 512, into runs: row numbers, and the length that they are padded to."""
    padded = np.array(LENGTHS)[np.searchsorted(LENGTHS, lengths)]
    for length in np.unique(padded).tolist():
        rows = np.flatnonzero(padded == length)
        size = max(1, min(CONTENTS, RUN_TERMS // length))
        for start in range(0, len(rows), size):
            yield rows[start : start + size], length


def _session(model: bytes) -> InferenceSession:
    options = SessionOptions()
    # One thread per run and several runs at once, as in the encoder.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])
