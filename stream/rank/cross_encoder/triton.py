"""The cross-encoder on Triton: pairs are tokenised, sorted and padded here; the model runs there."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tokenizers import Encoding

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.client import TritonClient
from tagbus.stream.encoder.endpoint import Endpoint, Failed, Tensors, Wanted
from tagbus.stream.encoder.isolation import Isolation
from tagbus.stream.encoder.triton import Limits, cut
from tagbus.stream.errors import Untaggable
from tagbus.stream.rank.cross_encoder.golden import Golden
from tagbus.stream.rank.cross_encoder.model import (
    CHUNK,
    COMMAND,
    MANIFEST,
    NAME,
    OUTPUT,
    Manifest,
    Scores,
    read_known,
    untaggable,
)
from tagbus.stream.rank.cross_encoder.pairs import Pair, PairReader, pad
from tagbus.stream.recall.component import ServedSettings, without_golden

log = logging.getLogger(__name__)

# Triton merges only requests of equal shape; triton_repo/cross_encoder/config.pbtxt warms these lengths up.
LENGTHS: Final = (32, 64, 96)
# max_batch_size of that configuration, and the tokens of as many pairs of 96. Requests of longer pairs hold fewer: the
# model takes some 100 kB of memory per token.
REQUEST: Final = Limits(32, 32 * LENGTHS[-1])


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs padded to one length; `rows` are their positions."""

    rows: list[int]
    feed: Tensors


class TritonCrossEncoder:
    """The cross-encoder of a folder on the configured servers. Call `open` first."""

    def __init__(
        self, manifest: Manifest, golden: Golden, reader: PairReader, settings: EncoderSettings, setting: str
    ) -> None:
        """`setting` is where the address comes from."""
        self.name: str = manifest.name
        self._golden = golden
        self._reader = reader
        self._seconds = settings.deadline_seconds / 2
        self._lengths = [length for length in LENGTHS if length < manifest.max_tokens] + [manifest.max_tokens]
        self._questions = self._batches(golden.pairs)
        wanted = Wanted(manifest.name, {OUTPUT: ("float32", (1,))})
        self._client = TritonClient(settings, wanted, self._prove, setting)
        self._isolation = Isolation(self._client, self._batches(golden.pairs[:1])[0].feed, self._lengths)

    async def open(self) -> None:
        """Return once every server has been tried and one has returned the golden scores. Raises as `TritonClient.open`
        does."""
        await self._client.open()

    async def rate(self, pairs: Sequence[Pair]) -> Scores:
        """See `CrossEncoder`. Raises ReleaseMismatch if another model answers."""
        found = np.empty(len(pairs), np.float32)
        poison: list[Untaggable] = []

        async def run(batch: Batch) -> None:
            try:
                found[batch.rows] = await self._rate(batch, pairs)
            except Untaggable as error:
                poison.append(error)

        for start in range(0, len(pairs), CHUNK):
            await self._client.each(await asyncio.to_thread(self._batches, pairs, start), run)
        if poison:
            raise poison[0]
        return found

    async def close(self) -> None:
        """Close the channels. No call may be in flight."""
        await self._client.close()

    def _batches(self, pairs: Sequence[Pair], start: int = 0) -> list[Batch]:
        """Tokenise up to CHUNK pairs and cut them into requests of pairs of one length, longest first."""
        tokens: list[Encoding] = self._reader.tokens(pairs[start : start + CHUNK])
        groups = cut([len(one.ids) for one in tokens], self._lengths, REQUEST)
        return [Batch([start + row for row in rows], pad([tokens[row] for row in rows], size)) for rows, size in groups]

    async def _rate(self, batch: Batch, pairs: Sequence[Pair]) -> Scores:
        """The scores of a request; if the model fails on it, its pairs are retried one by one."""
        try:
            return _scores(await self._client.ask(batch.feed))
        except Failed as error:
            log.warning("%s: %s; its %d pairs are tried alone", self.name, error, len(batch.rows))
        return np.array([await self._alone(batch, place, pairs) for place in range(len(batch.rows))], np.float32)

    async def _alone(self, batch: Batch, place: int, pairs: Sequence[Pair]) -> float:
        """The score of one pair of a failed request. Raises Untaggable if the pair is at fault."""
        try:
            row = {name: values[place : place + 1] for name, values in batch.feed.items()}
            return float(_scores(await self._isolation.ask(row))[0])
        except Failed as error:
            raise untaggable(pairs[batch.rows[place]], str(error)) from None

    async def _prove(self, endpoint: Endpoint) -> None:
        """Score the golden pairs. Raises ReleaseMismatch if the scores differ, and as `Endpoint.infer` does."""
        found = np.empty(len(self._golden.pairs), np.float32)
        for batch in self._questions:
            found[batch.rows] = _scores(await endpoint.infer(batch.feed, self._seconds))
        self._golden.check(found, self.name, endpoint.name)


async def open_cross_encoder(section: ServedSettings, encoder: EncoderSettings) -> TritonCrossEncoder:
    """The cross-encoder of a folder on Triton; the folder need not hold model.onnx.

    Fields unset in `section` come from `encoder`. Raises as `read_known` and `TritonClient.open` do, and UserError for
    cross_encoder.json without golden scores.
    """
    if section.folder is None:
        raise ValueError("a cross-encoder without a folder is off")
    manifest, tokenizer = await asyncio.to_thread(read_known, section.folder)
    if manifest.golden is None:
        raise without_golden(section.folder / MANIFEST, NAME, COMMAND)
    reader = PairReader(tokenizer, manifest.max_tokens)
    setting = section.origin(NAME).address
    made = TritonCrossEncoder(manifest, manifest.golden, reader, section.at(encoder), setting)
    await made.open()
    return made


def _scores(found: Tensors) -> Scores:
    return found[OUTPUT][:, 0].astype(np.float32, copy=False)
