"""The cross-encoder: reads tag and content together and estimates the probability that the tag is right.

Unlike the encoder, which embeds both separately, it attends across them ("[CLS] tag [SEP] content [SEP]", Elsevier,
2023.emnlp-industry.30, section 3.1). It is too slow for all candidates, so the ranker asks it about the best few. A
folder holds cross_encoder.json, tokenizer.json and model.onnx, which may be on a server instead; `tagbus train
cross-encoder` writes it.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Encoding

from tagbus.stream.cores import cores
from tagbus.stream.encoder.release import MODEL, TOKENIZER, sha256
from tagbus.stream.errors import FieldError, Untaggable, shorten
from tagbus.stream.onnx_runtime import InferenceSession, SessionOptions
from tagbus.stream.rank.cross_encoder.golden import PAIRS, Golden
from tagbus.stream.rank.cross_encoder.pairs import Pair, PairReader, cut, pad
from tagbus.stream.recall.trained import Sha256, Trained

NAME: Final = "cross_encoder"
COMMAND: Final = "tagbus train cross-encoder"
MANIFEST: Final = "cross_encoder.json"
OUTPUT: Final = "score"
MOST_TOKENS: Final = 512

MANIFEST_BYTES: Final = 1_000_000
TOKENIZER_BYTES: Final = 100_000_000
# protobuf's limit.
MODEL_BYTES: Final = 2_000_000_000
# Pairs tokenised at a time: 128 contents with 24 tags each, some 10 MB.
CHUNK: Final = 3_072

Scores = NDArray[np.float32]


class Manifest(BaseModel):
    """cross_encoder.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^cross_encoder-[0-9a-f]{8}$", description="stands in every result")
    encoder: str = Field(description="the release whose nearest tags were the wrong ones of its training")
    max_tokens: int = Field(ge=8, le=MOST_TOKENS, description="of a pair, [CLS] and both [SEP] among them")
    content_template: Literal["{title}\n{text}"] = Field(description="of a content, as the encoder reads it")
    tag_template: Literal["{name}\n{aliases}"] = Field(description="of a tag, as memory keeps it")
    model_sha256: Sha256
    tokenizer_sha256: Sha256
    golden: Golden | None = Field(None, description="scores that a server must return; none: in the process only")


class CrossEncoder(Protocol):
    """Scores how well tags fit contents. Several calls may run concurrently."""

    name: str

    async def rate(self, pairs: Sequence[Pair]) -> Scores:
        """The probability float32 [n] that a tag is right, for n pairs of a tag's text and a content's.

        Raises Untaggable for a pair that the model fails on, DependencyDown if no server answers.
        """


class OnnxCrossEncoder:
    """The cross-encoder of a folder, in this process."""

    def __init__(self, manifest: Manifest, model: bytes, tokenizer: str, threads: int = 0) -> None:
        """`threads` 0 takes all cores that the process may use."""
        options = SessionOptions()
        # One thread a run and several runs at once, as in the encoder.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.name: str = manifest.name
        self._session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._reader = PairReader(tokenizer, manifest.max_tokens)
        self._pool = ThreadPoolExecutor(threads or cores(), NAME)

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Self:
        """Load the cross-encoder of a folder. Raises as `read_known` does, for the model too."""
        manifest, tokenizer = read_known(folder)
        return cls(manifest, _files(folder).verified(MODEL, manifest.model_sha256, MODEL_BYTES), tokenizer, threads)

    async def rate(self, pairs: Sequence[Pair]) -> Scores:
        """See `CrossEncoder`."""
        return await asyncio.to_thread(self.score, pairs)

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """As `rate`, in the caller's thread."""
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), CHUNK):
            tokens = self._reader.tokens(pairs[start : start + CHUNK])
            batches = list(cut([len(one.ids) for one in tokens]))
            runs = self._pool.map(self._run, ([tokens[row] for row in rows] for rows in batches))
            for rows, scores in zip(batches, runs, strict=True):
                found[start + np.array(rows)] = scores
        strange = np.flatnonzero(~np.isfinite(found))
        if len(strange):
            raise untaggable(pairs[int(strange[0])], "its score is not finite")
        return found

    async def close(self) -> None:
        """End the threads. No call may be in flight."""
        await asyncio.to_thread(self._pool.shutdown)

    def _run(self, tokens: Sequence[Encoding]) -> Scores:
        """Score one batch, longest pair first."""
        (scores,) = self._session.run([OUTPUT], pad(tokens, len(tokens[0].ids)))
        return np.asarray(scores, np.float32)


def untaggable(pair: Pair, reason: str) -> Untaggable:
    """The error for a content whose pair the model fails on."""
    tag, content = pair
    expected = f"a text that the cross-encoder takes beside the tag {shorten(tag)} ({reason})"
    return Untaggable(NAME, (FieldError("text", shorten(content), expected),))


def read_manifest(folder: Path) -> Manifest:
    """cross_encoder.json. Raises UserError that names the file, the field and the expected value."""
    return _files(folder).about(Manifest, MANIFEST_BYTES)


def read_known(folder: Path) -> tuple[Manifest, str]:
    """The files that a worker needs wherever the model runs: cross_encoder.json and the tokenizer's JSON.

    Raises UserError if a file is missing or is not a cross-encoder's, ReleaseMismatch if a hash differs from
    cross_encoder.json.
    """
    manifest = read_manifest(folder)
    return manifest, _files(folder).verified(TOKENIZER, manifest.tokenizer_sha256, TOKENIZER_BYTES).decode()


def golden_of(manifest: Manifest, model: bytes, tokenizer: str) -> Golden:
    """The golden scores of a model."""
    return Golden.of(OnnxCrossEncoder(manifest, model, tokenizer, 1).score(PAIRS))


def name_of(model: bytes, tokenizer: bytes) -> str:
    """The name of a cross-encoder, unique by its hashes."""
    return f"cross_encoder-{sha256((sha256(model) + sha256(tokenizer)).encode())[:8]}"


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, COMMAND)
