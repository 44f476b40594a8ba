"""Classifier heads: the probability of each known tag for a content, from its words and its vector.

They memorise what neighbours in memory only approximate (the family of Astec, Dahiya et al. 2021, WSDM). They never
return a tag outside their training data; memory covers those. A folder holds heads.json (what they were trained on, and
the known tags), heads.onnx (the model, which may be on a server instead) and words.json (the terms); `tagbus train
heads` writes it.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import ReleaseMismatch, shorten
from tagbus.stream.memory.store import Vectors
from tagbus.stream.onnx_runtime import InferenceSession, SessionOptions
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.heads.golden import Chances, Golden, Numbers, Terms, Weights, questions
from tagbus.stream.recall.trained import Sha256, Trained
from tagbus.stream.recall.words import TERMS, Vocabulary

NAME: Final = "heads"
MANIFEST: Final = "heads.json"
MODEL: Final = "heads.onnx"
WORDS: Final = "words.json"

# The ids of a million tags take 30 MB, a million terms 20 MB; protobuf's limit is 2 GB.
MANIFEST_BYTES: Final = 100_000_000
WORDS_BYTES: Final = 100_000_000
MODEL_BYTES: Final = 2_000_000_000
# Padded lengths of bags: Triton batches only requests of equal shape. A title of YSO has 19 terms.
LENGTHS: Final = (8, 16, 32, 64, 128, 256, TERMS)
# A run takes 64 contents or 2,048 terms, which are 3 MB of float32.
CONTENTS: Final = 64
RUN_TERMS: Final = 2_048


class Manifest(BaseModel):
    """heads.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^heads-[0-9a-f]{8}$", description="recorded in every result")
    release: str = Field(description="of the encoder whose vectors they were trained on")
    dimension: int = Field(ge=1, le=65_536, description="of those vectors")
    best: int = Field(ge=1, le=1000, description="limit of tags per content")
    precision: str = Field(description="of the weights: int8, float16 or float32")
    model_sha256: Sha256
    words_sha256: Sha256
    fitted_on: int = Field(ge=1, description="contents that they were trained on")
    golden: Golden | None = Field(None, description="answers that a server must return; none: in the process only")
    tags: tuple[str, ...] = Field(min_length=1, description="ids of the known tags, by number")


class Model(Protocol):
    """Runs the heads: in-process, or on a server."""

    async def run(self, terms: Terms, weights: Weights, vectors: Vectors) -> tuple[Numbers, Chances]:
        """The best tags [n, best] of n bags [n, length], padded with weight 0, and vectors [n, d]; best first.

        Raises DependencyDown if a server does not answer.
        """

    async def close(self) -> None:
        """Free resources. No call may be in flight."""


class OnnxModel:
    """The model in-process. Several calls may run concurrently."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        self._session = _session(model)
        self._pool = ThreadPoolExecutor(threads, NAME)

    async def run(self, terms: Terms, weights: Weights, vectors: Vectors) -> tuple[Numbers, Chances]:
        """See `Model`."""
        feed = {"terms": terms, "weights": weights, "vectors": vectors}
        loop = asyncio.get_running_loop()
        numbers, chances = await loop.run_in_executor(self._pool, self._session.run, ["tags", "chances"], feed)
        return numbers, chances

    async def close(self) -> None:
        """Stop the threads. No call may be in flight."""
        await asyncio.to_thread(self._pool.shutdown)


class HeadsRecall:
    """Tags by the heads of a folder, with their probabilities, which sum to 1 over all known tags."""

    name: str = NAME

    def __init__(self, manifest: Manifest, vocabulary: Vocabulary, model: Model) -> None:
        self.manifest = manifest
        self._vocabulary = vocabulary
        self._model = model
        self._tags = np.array(manifest.tags, dtype=object)

    @classmethod
    def load(cls, folder: Path, release: str, threads: int = 1) -> Self:
        """Load the heads of a folder in-process, for an encoder's release. Raises as `read_known` does."""
        manifest, vocabulary = read_known(folder, release)
        model = _files(folder).verified(MODEL, manifest.model_sha256, MODEL_BYTES)
        return cls(manifest, vocabulary, OnnxModel(model, threads))

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with their probability, best first, for each content."""
        bags = await asyncio.to_thread(self._vocabulary.bags, query.texts)
        found: list[Mapping[str, float]] = [{} for _ in query.texts]

        async def part(rows: Numbers, length: int) -> None:
            terms, weights = bags.rows(rows).padded(length)
            numbers, chances = await self._model.run(terms, weights, query.vectors[rows])
            named = self._tags[numbers].tolist()
            for row, ids, values in zip(rows.tolist(), named, chances.tolist(), strict=True):
                found[row] = dict(zip(ids, values, strict=True))

        parts = [asyncio.create_task(part(rows, length)) for rows, length in cut(bags.lengths)]
        try:
            await asyncio.gather(*parts)
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        return found

    async def close(self) -> None:
        """Close the model. No call may be in flight."""
        await self._model.close()


def cut(lengths: NDArray[np.int64]) -> Iterator[tuple[Numbers, int]]:
    """Group bags into runs: row numbers, and the length that they are padded to."""
    padded = np.array(LENGTHS)[np.searchsorted(LENGTHS, lengths)]
    for length in np.unique(padded).tolist():
        rows = np.flatnonzero(padded == length)
        size = max(1, min(CONTENTS, RUN_TERMS // length))
        for start in range(0, len(rows), size):
            yield rows[start : start + size], length


def read_manifest(folder: Path) -> Manifest:
    """Read heads.json. Raises UserError that names the file, the field and the expected value."""
    return _files(folder).about(Manifest, MANIFEST_BYTES)


def read_known(folder: Path, release: str) -> tuple[Manifest, Vocabulary]:
    """Read the manifest and the vocabulary of heads for an encoder's release.

    Raises UserError if a file is missing or is not of heads, ReleaseMismatch if a hash differs from heads.json or they
    were trained on another release.
    """
    manifest = read_manifest(folder)
    if manifest.release != release:
        raise ReleaseMismatch(
            f"{folder / MANIFEST}: {manifest.name} was trained over release {shorten(manifest.release)}, but this "
            f"is {shorten(release)}; retrain it with `tagbus train heads` or configure that release"
        )
    words = _files(folder).verified(WORDS, manifest.words_sha256, WORDS_BYTES)
    return manifest, Vocabulary.parse(str(folder / WORDS), words)


def golden_of(model: bytes, terms: int, dimension: int) -> Golden:
    """The golden answers of a model with this many terms."""
    feed = dict(zip(("terms", "weights", "vectors"), questions(terms, dimension), strict=True))
    numbers, chances = _session(model).run(["tags", "chances"], feed)
    return Golden.of(numbers, chances)


def name_of(model: bytes, words: bytes, tags: Sequence[str]) -> str:
    """The name of heads, derived from their contents."""
    parts = (model, words, "\n".join(tags).encode())
    return f"heads-{sha256(b''.join(hashlib.sha256(part).digest() for part in parts))[:8]}"


def _session(model: bytes) -> InferenceSession:
    options = SessionOptions()
    # One thread per run and several runs at once, as in the encoder.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, "tagbus train heads")
