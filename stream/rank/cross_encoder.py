"""The cross-encoder: reads a tag and a content side by side, and says how probable it is that they belong together.

It sees which words of the one answer which of the other ("[CLS] tag [SEP] content [SEP]", Elsevier,
2023.emnlp-industry.30, section 3.1), where the encoder's two vectors have never met. It is too slow for all candidates:
a ranker asks it about its best few. A folder holds cross_encoder.json, model.onnx and tokenizer.json; `tagbus train
cross_encoder` writes it.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Encoding, Tokenizer

from tagbus.stream.encoder.onnx import cores
from tagbus.stream.encoder.release import MODEL, TOKENIZER, sha256
from tagbus.stream.encoder.tokens import BATCH_TOKENS, CHARACTERS_A_TOKEN
from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.component import ComponentOf, Part, ServedSettings, Surroundings
from tagbus.stream.recall.neighbours import texts
from tagbus.stream.recall.trained import Sha256, Trained

NAME: Final = "cross_encoder"
MANIFEST: Final = "cross_encoder.json"
INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT: Final = "score"
MOST_TOKENS: Final = 512

MANIFEST_BYTES: Final = 1_000_000
TOKENIZER_BYTES: Final = 100_000_000
# protobuf ends there.
MODEL_BYTES: Final = 2_000_000_000
# Pairs that are tokens at once: 128 contents with 24 tags each, some 10 MB.
CHUNK: Final = 3_072

Pair = tuple[str, str]
Scores = NDArray[np.float32]
Ints = NDArray[np.int64]


class Manifest(BaseModel):
    """cross_encoder.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^cross_encoder-[0-9a-f]{8}$", description="stands in every result")
    encoder: str = Field(description="the release whose nearest tags were the wrong ones of its training")
    max_tokens: int = Field(ge=8, le=MOST_TOKENS, description="of a pair, [CLS] and both [SEP] among them")
    content_template: Literal["{title}\n{text}"] = Field(description="of a content, as the encoder reads it")
    tag_template: Literal["{name}\n{aliases}"] = Field(description="of a tag: what memory keeps of one")
    model_sha256: Sha256
    tokenizer_sha256: Sha256


class CrossEncoder(Protocol):
    """How well tags and contents go together. Several calls may run at once."""

    name: str

    async def rate(self, pairs: Sequence[Pair]) -> Scores:
        """The probability float32 [n] that a tag is right, for n pairs of a tag's text and a content's.

        Raises DependencyDown where a server does not answer.
        """


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of a batch: of its contents by row, of its tags by number (`ids`) and what memory keeps of each."""

    contents: Sequence[str]
    ids: Sequence[str]
    payloads: Mapping[str, Payload]

    def pairs(self, rows: Ints, tags: Ints) -> list[Pair]:
        """A tag's text and a content's, for each pair of a row and a number."""
        named = {tag: self._text(tag) for tag in np.unique(tags).tolist()}
        return [(named[tag], self.contents[row]) for row, tag in zip(rows.tolist(), tags.tolist(), strict=True)]

    def _text(self, tag: int) -> str:
        payload = self.payloads[self.ids[tag]]
        return tag_text(cast(str, payload["name"]), texts(payload, "aliases"))


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
        self._characters = CHARACTERS_A_TOKEN * manifest.max_tokens
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.enable_truncation(manifest.max_tokens, strategy="longest_first")
        self._tokenizer.no_padding()
        # "[SEP]" in a content is five characters, not the end of a segment.
        self._tokenizer.encode_special_tokens = True
        self._pool = ThreadPoolExecutor(threads or cores(), "cross_encoder")

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Self:
        """The cross-encoder of a folder.

        Raises UserError for a file that is missing or no cross-encoder's, ReleaseMismatch where a hash is not the one
        that cross_encoder.json names.
        """
        manifest, files = read_manifest(folder), _files(folder)
        model = files.verified(MODEL, manifest.model_sha256, MODEL_BYTES)
        tokenizer = files.verified(TOKENIZER, manifest.tokenizer_sha256, TOKENIZER_BYTES)
        return cls(manifest, model, tokenizer.decode(), threads)

    async def rate(self, pairs: Sequence[Pair]) -> Scores:
        """See `CrossEncoder`."""
        return await asyncio.to_thread(self.score, pairs)

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """What `rate` gives, in the thread that asks. What does not fit into the tokens is cut from the longer of the
        two."""
        found = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), CHUNK):
            part = pairs[start : start + CHUNK]
            some = [(tag[: self._characters], content[: self._characters]) for tag, content in part]
            tokens = self._tokenizer.encode_batch_fast(some)
            batches = list(cut([len(one.ids) for one in tokens]))
            runs = self._pool.map(self._run, ([tokens[row] for row in rows] for rows in batches))
            for rows, scores in zip(batches, runs, strict=True):
                found[start + np.array(rows)] = scores
        return found

    def close(self) -> None:
        """End the threads. No call may be under way."""
        self._pool.shutdown()

    def _run(self, tokens: Sequence[Encoding]) -> Scores:
        """The pairs of one batch, the longest first."""
        feed = {name: np.zeros((len(tokens), len(tokens[0].ids)), np.int64) for name in INPUTS}
        for row, one in enumerate(tokens):
            for name, values in zip(INPUTS, (one.ids, one.attention_mask, one.type_ids), strict=True):
                feed[name][row, : len(values)] = values
        (scores,) = self._session.run([OUTPUT], feed)
        return np.asarray(scores, np.float32)


def cut(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group pairs into runs of the model, longest first: what is padded is little."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if rows and lengths[rows[0]] * (len(rows) + 1) > BATCH_TOKENS:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def tag_text(name: str, aliases: Sequence[str]) -> str:
    """The text of a tag: its name, and a line of its aliases. What it was trained on had no descriptions."""
    return "\n".join(part for part in (name.strip(), ", ".join(aliases)) if part)


def read_manifest(folder: Path) -> Manifest:
    """cross_encoder.json. Raises UserError that names the file, the field and what would be right."""
    return _files(folder).about(Manifest, MANIFEST_BYTES)


def name_of(model: bytes, tokenizer: bytes) -> str:
    """The name of a cross-encoder: another one has another."""
    return f"cross_encoder-{sha256((sha256(model) + sha256(tokenizer)).encode())[:8]}"


def _files(folder: Path) -> Trained:
    return Trained(folder, MANIFEST, "tagbus train cross-encoder")


class CrossEncoderSettings(ServedSettings):
    """`folder` holds cross_encoder.json, tokenizer.json and, where the model runs in the process, model.onnx."""

    model: str = Field(NAME, min_length=1, description="Triton's name of the model")


@dataclass(frozen=True, slots=True)
class CrossEncoderPart(Part):
    """The cross-encoder, for the stage after `rank`."""

    cross_encoder: CrossEncoder = field(kw_only=True)


async def _open_component(section: CrossEncoderSettings, into: Surroundings) -> Part:
    if section.folder is None:
        raise ValueError("a cross-encoder without a folder is off")
    made = await asyncio.to_thread(OnnxCrossEncoder.load, section.folder, into.settings.encoder.threads)

    async def close() -> None:
        await asyncio.to_thread(made.close)

    return CrossEncoderPart(cross_encoder=made, close=close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=CrossEncoderSettings,
    version=lambda section: None if section.folder is None else read_manifest(section.folder).name,
    open=_open_component,
    needs="ranker",
)
