"""The in-process encoder: ONNX Runtime on CPU or GPU."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.stream.cores import cores
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.golden import load_golden
from tagbus.stream.encoder.release import MODEL, load_release
from tagbus.stream.encoder.session import Device, Session
from tagbus.stream.encoder.tokens import BATCH_TOKENS, Batch, TextReader, pad
from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.turns import Turns

# A model run has a fixed cost of 16 tokens: the weights pass through the cache once (2.4 ms, 0.15 ms a token). So a
# batch may waste that much on padding before a separate run is cheaper. On titles in calls of 128 this takes 22% less
# work than padding to 16, 32, 64, 128 or 256, 24% less than eights cut from the sorted texts, 2% more than the best
# cut.
WASTE: Final = 16
# Not measured on a GPU yet: larger runs, because starting one costs more there than padding.
GPU_TEXTS: Final = 64
GPU_WASTE: Final = 1024
GPU_THREADS: Final = 2
# Seconds that each character adds to a call's due time: three times the 0.09 ms that it takes on one core at 128
# tokens, to allow for concurrent calls. At most this many characters count: a batch of titles. Without a limit a chunk
# of 512 records of memory, a new tag among them, was overtaken for minutes.
CHARACTER: Final = 0.0003
MOST_CHARACTERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Fit:
    """Batch limits: texts, tokens including padding, and padding tokens."""

    texts: int
    tokens: int
    waste: int


CPU: Final = Device()


class OnnxEncoder:
    """Encodes texts with the model of a folder."""

    def __init__(self, folder: Path, threads: int = 0, batch: int = 32, device: Device = CPU) -> None:
        """`threads`: 0 uses all cores available to the process; a model run holds at most `batch` texts.

        On a GPU a run holds 64, and two threads alternate: one copies while the other computes. There the golden texts
        are encoded first, as a warm-up that makes TensorRT build its engine.

        Raises ReleaseMismatch if model, tokenizer or golden texts differ from release.json or the GPU produces other
        vectors; UserError if no provider of `device` is available.
        """
        self.release = load_release(folder)
        self._reader = TextReader(folder, self.release)
        self._session = Session(folder / MODEL, device, (GPU_TEXTS, self.release.max_tokens))
        if self._session.width != self.release.dimension:
            raise ReleaseMismatch(
                f"{folder / MODEL} gives {self._session.width} numbers a text, expected {self.release.dimension}"
            )
        if self._session.provider == "cpu":
            self._threads = threads or cores()
            self._fit = Fit(batch, BATCH_TOKENS, WASTE)
        else:
            self._threads = threads or GPU_THREADS
            self._fit = Fit(GPU_TEXTS, GPU_TEXTS * self.release.max_tokens, GPU_WASTE)
            self._prove(folder)
        self._turns = Turns(self._threads, "encoder")

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, dimension] of unit length, in the order of the texts. A short call overtakes long ones.

        Raises ValueError for a text with lone surrogates, which is not Unicode text.
        """
        vectors = np.empty((len(texts), self.release.dimension), dtype=np.float32)
        due = _due(texts)
        # Out of turn: the threads are in runs that may take a second, this takes a millisecond.
        batches = iter(await asyncio.to_thread(self._prepare, texts))

        async def lane() -> None:
            for batch in batches:
                await self._turns.run(due, self._run, batch, vectors)

        # Two batches per thread: no thread waits for the event loop.
        lanes = [asyncio.create_task(lane()) for _ in range(2 * self._threads)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
        return vectors

    async def close(self) -> None:
        """Stop the threads. No call may be in flight."""
        await asyncio.to_thread(self._turns.close)

    def _prove(self, folder: Path) -> None:
        """Hashes verify the files, but not their execution by a GPU and its compiler."""
        golden = load_golden(folder, self.release)
        vectors = np.empty((len(golden.texts), self.release.dimension), dtype=np.float32)
        for batch in self._prepare(golden.texts):
            self._run(batch, vectors)
        golden.check(vectors, f"ONNX Runtime on {self._session.provider}")

    def _prepare(self, texts: Sequence[str]) -> list[Batch]:
        """Tokenize, then cut into batches, longest first so that the threads finish together."""
        tokens = self._reader.tokens(texts)
        cut = _cut([len(ids) for ids in tokens], self._fit)
        return [pad(rows, tokens, len(tokens[rows[0]])) for rows in cut]

    def _run(self, batch: Batch, vectors: Vectors) -> None:
        """Fill the batch's rows of `vectors`."""
        found = self._session.run(batch.ids, batch.mask)
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            raise ValueError(f"text number {batch.rows[int(finite.argmin())]} has a vector that is not finite")
        vectors[batch.rows] = found


def _due(texts: Sequence[str]) -> float:
    """The due time of a call that arrives now. Only calls that arrive before it can overtake this one, so none waits
    forever: at most CHARACTER * MOST_CHARACTERS, 3 s."""
    return time.monotonic() + CHARACTER * min(sum(map(len, texts)), MOST_CHARACTERS)


def _cut(lengths: Sequence[int], fit: Fit) -> Iterator[list[int]]:
    """Group the texts, longest first, into batches within the limits and with little padding."""
    rows: list[int] = []
    longest = waste = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        waste += longest - lengths[row]
        if rows and (waste > fit.waste or len(rows) == fit.texts or longest * (len(rows) + 1) > fit.tokens):
            yield rows
            rows = []
        if not rows:
            longest, waste = lengths[row], 0
        rows.append(row)
    if rows:
        yield rows
