"""A classifier on Triton: what it reads is made in the worker, the model runs there."""

from collections.abc import Sequence

import numpy as np

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.client import TritonClient
from tagbus.stream.encoder.endpoint import Endpoint, Tensors, Wanted
from tagbus.stream.errors import ReleaseMismatch
from tagbus.stream.recall.classifier.golden import Chances, Golden, Numbers
from tagbus.stream.recall.classifier.model import CHANCES, TAGS, Feed


class TritonModel:
    """The model of a folder on the configured servers. Call `open` first."""

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        golden: tuple[Golden, Sequence[Feed]],
        settings: EncoderSettings,
        setting: str,
    ) -> None:
        """`size`: how many tags the model knows, and how many it gives. `golden`: its answers, and the questions in
        runs. `setting`: where the address comes from."""
        self._name = name
        self._known, best = size
        self._golden, self._questions = golden
        self._seconds = settings.deadline_seconds / 2
        outputs = {TAGS: ("int64", (best,)), CHANCES: ("float32", (best,))}
        self._client = TritonClient(settings, Wanted(name, outputs), self._prove, setting)

    async def open(self) -> None:
        """Return once every server has been tried and one has returned the golden answers. Raises as
        `TritonClient.open` does."""
        await self._client.open()

    async def run(self, feed: Feed) -> tuple[Numbers, Chances]:
        """See `Model`. Raises ReleaseMismatch if another model answers."""
        numbers, chances = _answer(await self._client.ask_again(dict(feed)))
        if not ((numbers >= 0) & (numbers < self._known)).all():
            raise ReleaseMismatch(f"Triton returns tag numbers that {self._name} does not have")
        return numbers, chances

    async def close(self) -> None:
        """Close the channels. No call may be in flight."""
        await self._client.close()

    async def _prove(self, endpoint: Endpoint) -> None:
        found = [_answer(await endpoint.infer(dict(feed), self._seconds)) for feed in self._questions]
        numbers, chances = (np.concatenate(parts) for parts in zip(*found, strict=True))
        self._golden.check(numbers, chances, self._name, endpoint.name)


def _answer(found: Tensors) -> tuple[Numbers, Chances]:
    return found[TAGS].astype(np.int64, copy=False), found[CHANCES].astype(np.float32, copy=False)
