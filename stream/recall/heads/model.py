"""Classifier heads: the probability of each known tag for a content, from its words and its vector.

They memorise what neighbours in memory only approximate (the family of Astec, Dahiya et al. 2021, WSDM). They never
return a tag outside their training data; memory covers those. A folder holds heads.json (what they were trained on, and
the known tags), heads.onnx (the model, which may be on a server instead) and words.json (the terms); `tagbus train
heads` writes it.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import ReleaseMismatch, shorten
from tagbus.stream.memory.store import Vectors
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.classifier.golden import Golden, Numbers
from tagbus.stream.recall.classifier.model import Feed, Model, OnnxModel, answer, listed
from tagbus.stream.recall.heads.golden import Terms, Weights, questions
from tagbus.stream.recall.trained import Sha256, Trained
from tagbus.stream.recall.words import Vocabulary

NAME: Final = "heads"
MANIFEST: Final = "heads.json"
MODEL: Final = "heads.onnx"
WORDS: Final = "words.json"

# The ids of a million tags take 30 MB, a million terms 20 MB; protobuf's limit is 2 GB.
MANIFEST_BYTES: Final = 100_000_000
WORDS_BYTES: Final = 100_000_000
MODEL_BYTES: Final = 2_000_000_000


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
        return cls(manifest, vocabulary, OnnxModel(model, threads, NAME))

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with their probability, best first, for each content."""
        bags = await asyncio.to_thread(self._vocabulary.bags, query.texts)

        def feed(rows: Numbers, length: int) -> Feed:
            terms, weights = bags.rows(rows).padded(length)
            return feed_of(terms, weights, query.vectors[rows])

        return await listed(self._model, self._tags, bags.lengths, feed)

    async def close(self) -> None:
        """Close the model. No call may be in flight."""
        await self._model.close()


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
    return Golden.of(*answer(model, feed_of(*questions(terms, dimension))))


def feed_of(terms: Terms, weights: Weights, vectors: Vectors) -> Feed:
    """The inputs of the model: bags [n, length], padded with weight 0, and vectors [n, d]."""
    return {"terms": terms, "weights": weights, "vectors": vectors}


def name_of(model: bytes, words: bytes, tags: Sequence[str]) -> str:
    """The name of heads, derived from their contents."""
    parts = (model, words, "\n".join(tags).encode())
    return f"heads-{sha256(b''.join(hashlib.sha256(part).digest() for part in parts))[:8]}"


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, "tagbus train heads")
