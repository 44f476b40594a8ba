"""The classifier heads on Triton: bags and vectors are built here; the model runs there."""

import asyncio
from pathlib import Path

import numpy as np

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.client import TritonClient
from tagbus.stream.encoder.endpoint import Endpoint, Tensors, Wanted
from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.memory.store import Vectors
from tagbus.stream.recall.component import ServedSettings, without_golden
from tagbus.stream.recall.heads.golden import Chances, Golden, Numbers, Terms, Weights, questions
from tagbus.stream.recall.heads.model import MANIFEST, NAME, HeadsRecall, Manifest, read_known


class TritonHeads:
    """The model of a folder's heads on the configured servers. Call `open` first."""

    def __init__(self, manifest: Manifest, golden: Golden, terms: int, settings: EncoderSettings, setting: str) -> None:
        """`terms` is the size of their vocabulary, `setting` where the address comes from."""
        self._manifest = manifest
        self._golden = golden
        self._questions = _feed(*questions(terms, manifest.dimension))
        self._seconds = settings.deadline_seconds / 2
        outputs = {"tags": ("int64", (manifest.best,)), "chances": ("float32", (manifest.best,))}
        self._client = TritonClient(settings, Wanted(manifest.name, outputs), self._prove, setting)

    async def open(self) -> None:
        """Return once every server has been tried and one has returned the golden answers. Raises as
        `TritonClient.open` does."""
        await self._client.open()

    async def run(self, terms: Terms, weights: Weights, vectors: Vectors) -> tuple[Numbers, Chances]:
        """See `Model`. Raises ReleaseMismatch if another model answers."""
        numbers, chances = _answer(await self._client.ask_again(_feed(terms, weights, vectors)))
        if not ((numbers >= 0) & (numbers < len(self._manifest.tags))).all():
            raise ReleaseMismatch(f"Triton returns tag numbers that {self._manifest.name} does not have")
        return numbers, chances

    async def close(self) -> None:
        """Close the channels. No call may be in flight."""
        await self._client.close()

    async def _prove(self, endpoint: Endpoint) -> None:
        found = await endpoint.infer(self._questions, self._seconds)
        self._golden.check(*_answer(found), self._manifest.name, endpoint.name)


async def open_heads(folder: Path, release: str, section: ServedSettings, encoder: EncoderSettings) -> HeadsRecall:
    """The heads of a folder on Triton, for an encoder's release; the folder need not hold heads.onnx.

    Fields unset in `section` come from `encoder`. Raises as `HeadsRecall.load` and `TritonClient.open` do, and
    UserError for heads.json without golden answers.
    """
    manifest, vocabulary = await asyncio.to_thread(read_known, folder, release)
    if manifest.golden is None:
        raise without_golden(folder / MANIFEST, NAME, "tagbus train heads")
    setting = section.origin(NAME).address
    model = TritonHeads(manifest, manifest.golden, len(vocabulary.frequencies), section.at(encoder), setting)
    await model.open()
    return HeadsRecall(manifest, vocabulary, model)


def _feed(terms: Terms, weights: Weights, vectors: Vectors) -> Tensors:
    return {"terms": terms, "weights": weights, "vectors": vectors}


def _answer(found: Tensors) -> tuple[Numbers, Chances]:
    return found["tags"].astype(np.int64, copy=False), found["chances"].astype(np.float32, copy=False)
