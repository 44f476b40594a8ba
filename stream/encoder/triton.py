"""The encoder on Triton: texts are tokenised, sorted and padded here; the model runs there.

It has the interface and the vectors of the in-process encoder. Requests are padded to a few lengths, because Triton
merges only requests of equal shape, including those of other workers.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from tagbus.stream import telemetry
from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.balance import Resolve, resolve
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.cache import VectorCache
from tagbus.stream.encoder.client import TritonClient
from tagbus.stream.encoder.endpoint import Endpoint, Failed, Tensors, Wanted
from tagbus.stream.encoder.golden import load_golden
from tagbus.stream.encoder.isolation import MASK, Isolation
from tagbus.stream.encoder.release import load_release
from tagbus.stream.encoder.tokens import BATCH_TOKENS, Batch, TextReader, pad
from tagbus.stream.errors import FieldError, Untaggable, shorten

log = logging.getLogger(__name__)

# In calls of 32 titles these lengths take 6% more work than padding each batch to its longest text; 16, 32, 64, 128 and
# 256 took 24% more, and merged better only for many concurrent single texts.
LENGTHS: Final = (12, 16, 24, 32, 48, 64, 128, 256)
# Texts a request: max_batch_size of triton_repo/encoder/config.pbtxt.
REQUEST_TEXTS: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """The most rows and tokens, padding included, of a request; a single row may have more tokens."""

    rows: int
    tokens: int


TEXTS: Final = Limits(REQUEST_TEXTS, BATCH_TOKENS)
OUTPUT: Final = "sentence_embedding"


class TritonEncoder:
    """Texts to vectors with a release that the configured servers serve."""

    def __init__(self, folder: Path, settings: EncoderSettings, setting: str, find: Resolve = resolve) -> None:
        """`folder` holds the release, whose model the servers must have. Use `open` to make one.

        Raises ReleaseMismatch if a file differs from release.json.
        """
        self.release = load_release(folder)
        self._settings = settings
        self._reader = TextReader(folder, self.release)
        self._lengths = [length for length in LENGTHS if length < self.release.max_tokens] + [self.release.max_tokens]
        self._golden = load_golden(folder, self.release)
        self._golden_batches = self._cut(self._golden.texts)
        self._cache = VectorCache(settings.cache)
        wanted = Wanted(f"release {self.release.name}", {OUTPUT: ("float32", (self.release.dimension,))})
        self._client = TritonClient(settings, wanted, self._prove, setting, find)
        self._isolation = Isolation(self._client, _feed(self._cut(self._golden.texts[:1])[0]), self._lengths)

    @classmethod
    async def open(
        cls, folder: Path, settings: EncoderSettings, setting: str = "encoder.address", find: Resolve = resolve
    ) -> Self:
        """An encoder whose servers have returned the release's golden vectors. `setting` is where the address comes
        from.

        Raises ReleaseMismatch that names server and text if one has not, DependencyDown if none answers within the
        deadline, UserError for an invalid address or TLS file.
        """
        encoder = cls(folder, settings, setting, find)
        await encoder._client.open()
        return encoder

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [n, dimension] of unit length, in the order of the texts.

        Raises Untaggable for a text that cannot be encoded, DependencyDown if no server answers within the deadline or
        all are too busy, ReleaseMismatch if another model answers. Vectors encoded before that stay in the cache.
        """
        vectors = np.empty((len(texts), self.release.dimension), dtype=np.float32)
        missing = self._recalled(texts, vectors)
        poison: list[Untaggable] = []

        async def run(batch: Batch) -> None:
            named = Batch([missing[row] for row in batch.rows], batch.ids, batch.mask)
            try:
                await self._fill(named, texts, vectors)
            except Untaggable as error:
                poison.append(error)

        await self._client.each(await asyncio.to_thread(self._cut, [texts[row] for row in missing]), run)
        if poison:
            raise poison[0]
        return vectors

    async def close(self) -> None:
        """Close the channels. No call may be in flight."""
        await self._client.close()

    def _recalled(self, texts: Sequence[str], vectors: Vectors) -> list[int]:
        """Fill in cached vectors, and return the rows that are not cached."""
        missing = []
        for row, text in enumerate(texts):
            try:
                known = self._cache.get(self._reader.read(text))
            except UnicodeEncodeError:
                known = None
            if known is None:
                missing.append(row)
            else:
                vectors[row] = known
        telemetry.TRITON_CACHED.labels(model=self._settings.model).inc(len(texts) - len(missing))
        return missing

    def _cut(self, texts: Sequence[str]) -> list[Batch]:
        """Tokenise and cut into requests of texts of one length, longest first.

        Raises Untaggable for a text that is not valid Unicode.
        """
        try:
            tokens = self._reader.tokens(texts)
        except ValueError as error:
            raise Untaggable("encode", (FieldError("text", "it", f"Unicode text ({error})"),)) from None
        return [pad(rows, tokens, length) for rows, length in cut([len(ids) for ids in tokens], self._lengths)]

    async def _fill(self, batch: Batch, texts: Sequence[str], vectors: Vectors) -> None:
        """Fill the rows of the batch and cache them. Raises as `encode` does."""
        try:
            found = await self._ask(batch)
        except Failed as error:
            log.warning("encode: %s; its %d texts are tried alone", error, len(batch.rows))
            await self._singly(batch, texts, vectors)
            return
        vectors[batch.rows] = found
        for row, vector in zip(batch.rows, found, strict=True):
            self._cache.put(self._reader.read(texts[row]), vector)

    async def _singly(self, batch: Batch, texts: Sequence[str], vectors: Vectors) -> None:
        poison = None
        for place, row in enumerate(batch.rows):
            one = Batch([row], batch.ids[place : place + 1], batch.mask[place : place + 1])
            try:
                vectors[row] = await self._alone(one, texts[row])
            except Untaggable as error:
                poison = error
            else:
                self._cache.put(self._reader.read(texts[row]), vectors[row])
        if poison is not None:
            raise poison

    async def _alone(self, one: Batch, text: str) -> Vectors:
        """The vector of one text of a failed request. Raises Untaggable if the text is at fault."""
        try:
            return _vectors(await self._isolation.ask(_feed(one)))[0]  # type: ignore[no-any-return]
        except Failed as error:
            expected = f"a text that the encoder takes ({error})"
            raise Untaggable("encode", (FieldError("text", shorten(text), expected),)) from None

    async def _ask(self, batch: Batch) -> Vectors:
        """float32 [n, dimension] by one request. Raises Failed, DependencyDown, ReleaseMismatch."""
        return _vectors(await self._client.ask(_feed(batch)))

    async def _prove(self, endpoint: Endpoint) -> None:
        """Encode the golden texts. Raises ReleaseMismatch if the vectors differ, and as `Endpoint.infer` does."""
        vectors = np.empty((len(self._golden.texts), self.release.dimension), dtype=np.float32)
        for batch in self._golden_batches:
            vectors[batch.rows] = _vectors(await endpoint.infer(_feed(batch), self._settings.deadline_seconds / 2))
        self._golden.check(vectors, endpoint.name)


def _feed(batch: Batch) -> Tensors:
    return {"input_ids": batch.ids, MASK: batch.mask}


def _vectors(found: Tensors) -> Vectors:
    return found[OUTPUT].astype(np.float32, copy=False)


def cut(lengths: Sequence[int], padded: Sequence[int], most: Limits = TEXTS) -> Iterator[tuple[list[int], int]]:
    """Group rows of these lengths into requests, longest first: row numbers and the length to pad them to."""
    rows: list[int] = []
    length = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        least = next(one for one in padded if one >= lengths[row])
        if rows and (least != length or len(rows) == most.rows or length * (len(rows) + 1) > most.tokens):
            yield rows, length
            rows = []
        length = least
        rows.append(row)
    if rows:
        yield rows, length
