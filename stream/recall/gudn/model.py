"""The guided classifier: the probability of each known tag for a content, by a BERT of its own over the text alone.

`tagbus train gudn` fine-tunes it with the names of the tags as a guide (GUDN, arXiv 2201.11582), which inference never
sees. The set of tags is closed: it never gives a tag that was not in its training data, and memory covers those. A
folder holds gudn.json (what it was trained on, and the known tags), tokenizer.json and model.onnx, which may be on a
server instead.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tagbus.stream.encoder.release import MODEL, TOKENIZER, sha256
from tagbus.stream.encoder.tokens import TextReader, pad
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.classifier.golden import Golden, Numbers
from tagbus.stream.recall.classifier.model import LENGTHS, Feed, Model, OnnxModel, answer, cut, listed
from tagbus.stream.recall.trained import Sha256, Trained

NAME: Final = "gudn"
COMMAND: Final = "tagbus train gudn"
MANIFEST: Final = "gudn.json"
# The ids of a million tags take 30 MB; protobuf's limit is 2 GB.
MANIFEST_BYTES: Final = 100_000_000
TOKENIZER_BYTES: Final = 100_000_000
MODEL_BYTES: Final = 2_000_000_000

# What a server is asked before it is trusted: nothing, a title, another script, a long text.
TEXTS: Final = (
    "",
    "A history of fishing rights in the Baltic Sea, 1809-1917",
    "図書館における主題索引の自動化 и цифровые библиотеки",
    "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands in southern Finland. " * 8,
)


class Manifest(BaseModel):
    """gudn.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^gudn-[0-9a-f]{8}$", description="recorded in every result")
    max_tokens: int = Field(ge=3, le=LENGTHS[-1], description="of a text, [CLS] and [SEP] among them")
    content_template: Literal["{title}\n{text}"] = Field(description="of a content, as the encoder reads it")
    best: int = Field(ge=1, le=1000, description="tags that a content gets at most")
    model_sha256: Sha256
    tokenizer_sha256: Sha256
    fitted_on: int = Field(ge=1, description="contents that it was trained on")
    golden: Golden | None = Field(None, description="answers that a server must give; none: in the process alone")
    tags: tuple[str, ...] = Field(min_length=1, description="ids of the known tags, by number")


class GuidedRecall:
    """Tags by the model of a folder, with their probabilities."""

    name: str = NAME

    def __init__(self, manifest: Manifest, reader: TextReader, model: Model) -> None:
        self.manifest = manifest
        self._reader = reader
        self._model = model
        self._tags = np.array(manifest.tags, dtype=object)

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """Load the model of a folder in-process. Raises as `read_known` does, for the model too."""
        manifest, reader = read_known(folder)
        model = _files(folder).verified(MODEL, manifest.model_sha256, MODEL_BYTES)
        return cls(manifest, reader, OnnxModel(model, threads, NAME))

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with their probability, best first, for each content."""
        tokens = await asyncio.to_thread(self._reader.tokens, query.texts)
        lengths = np.array([len(ids) for ids in tokens], np.int64)
        return await listed(self._model, self._tags, lengths, lambda rows, length: feed_of(tokens, rows, length))

    async def close(self) -> None:
        """Close the model. No call may be in flight."""
        await self._model.close()


def feed_of(tokens: Sequence[Sequence[int]], rows: Numbers, length: int) -> Feed:
    """The inputs of the model: token ids [n, length] of these rows, and their mask."""
    batch = pad(rows.tolist(), tokens, length)
    return {"input_ids": batch.ids, "attention_mask": batch.mask}


def read_manifest(folder: Path) -> Manifest:
    """Read gudn.json. Raises UserError that names the file, the field and the expected value."""
    return _files(folder).about(Manifest, MANIFEST_BYTES)


def read_known(folder: Path) -> tuple[Manifest, TextReader]:
    """What a worker needs wherever the model runs: gudn.json and the tokenizer.

    Raises UserError if a file is missing or is not of this component, ReleaseMismatch if a hash differs from gudn.json.
    """
    manifest = read_manifest(folder)
    _files(folder).verified(TOKENIZER, manifest.tokenizer_sha256, TOKENIZER_BYTES)
    return manifest, TextReader(folder, manifest)


def questions(reader: TextReader) -> list[Feed]:
    """TEXTS as runs of the model."""
    tokens = reader.tokens(TEXTS)
    return [feed_of(tokens, rows, length) for rows, length in cut(np.array([len(ids) for ids in tokens], np.int64))]


def golden_of(model: bytes, reader: TextReader) -> Golden:
    """The golden answers of a model, in the order of the runs of `questions`."""
    found = [answer(model, feed) for feed in questions(reader)]
    numbers, chances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Golden.of(numbers, chances)


def name_of(model: bytes, tokenizer: bytes, tags: Sequence[str]) -> str:
    """The name of a model, derived from its contents."""
    parts = (model, tokenizer, "\n".join(tags).encode())
    return f"{NAME}-{sha256(b''.join(hashlib.sha256(part).digest() for part in parts))[:8]}"


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, COMMAND)
