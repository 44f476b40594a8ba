"""The encoder in this process: ONNX Runtime on the CPU."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.release import MODEL, load_release
from tagbus.stream.encoder.tokens import BATCH_TOKENS, Batch, TextReader, pad
from tagbus.stream.errors import ReleaseMismatch

# A run of the model costs as much as 16 tokens more: the weights go through the cache once (2.4 ms, 0.15 ms a token).
# A batch may waste that much on padding before another is cheaper. On titles in calls of 128 this takes 22% less work
# than padding to 16, 32, 64, 128 or 256, 24% less than eights cut from the sorted texts, 2% more than the best cut.
WASTE: Final = 16


class OnnxEncoder:
    """Texts to vectors with the model that lies in a folder."""

    def __init__(self, folder: Path, threads: int = 0, batch: int = 32) -> None:
        """`threads` 0 takes all cores that the process may use; a run of the model holds `batch` texts at most.

        Raises ReleaseMismatch when model or tokenizer are not what release.json says.
        """
        self.release = load_release(folder)
        self._threads = threads or _cores()
        self._batch = batch
        self._reader = TextReader(folder, self.release)
        self._session = _session(folder / MODEL)
        width = self._session.get_outputs()[0].shape[1]
        if width != self.release.dimension:
            raise ReleaseMismatch(f"{folder / MODEL} gives {width} numbers a text, expected {self.release.dimension}")
        self._pool = ThreadPoolExecutor(self._threads, "encoder")

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, dimension] of unit length, in the order of the texts.

        Raises ValueError for a text with lone surrogates, which is no Unicode text.
        """
        vectors = np.empty((len(texts), self.release.dimension), dtype=np.float32)
        loop = asyncio.get_running_loop()
        batches = iter(await loop.run_in_executor(self._pool, self._prepare, texts))

        async def lane() -> None:
            for batch in batches:
                await loop.run_in_executor(self._pool, self._run, batch, vectors)

        # Two batches a thread: none waits for the event loop, and a long call does not shut out a short one.
        lanes = [asyncio.create_task(lane()) for _ in range(2 * self._threads)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
        return vectors

    async def close(self) -> None:
        """End the threads. No call may be under way."""
        await asyncio.to_thread(self._pool.shutdown)

    def _prepare(self, texts: Sequence[str]) -> list[Batch]:
        """Tokenise, then cut into batches, longest first so that the threads end together."""
        tokens = self._reader.tokens(texts)
        cut = _cut([len(ids) for ids in tokens], self._batch)
        return [pad(rows, tokens, len(tokens[rows[0]])) for rows in cut]

    def _run(self, batch: Batch, vectors: Vectors) -> None:
        """Fill the rows of `vectors` that belong to the batch."""
        feed = {"input_ids": batch.ids, "attention_mask": batch.mask}
        found = self._session.run(["sentence_embedding"], feed)[0]
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            raise ValueError(f"text number {batch.rows[int(finite.argmin())]} has a vector that is not finite")
        vectors[batch.rows] = found


def _session(path: Path) -> onnxruntime.InferenceSession:
    """One thread a run and several runs at once: 384 titles took 1.4 CPU seconds, whether one or two callers sent them.

    Two threads inside a run took 2.6, since the idle one spins, and 1.5 without spinning, for no more titles a second.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cut(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Group the texts, longest first, into batches of at most `most` that waste little on padding."""
    rows: list[int] = []
    longest = waste = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        waste += longest - lengths[row]
        if rows and (waste > WASTE or len(rows) == most or longest * (len(rows) + 1) > BATCH_TOKENS):
            yield rows
            rows = []
        if not rows:
            longest, waste = lengths[row], 0
        rows.append(row)
    if rows:
        yield rows
