"""What a choice of trainings is made by: the size of a corpus, and the speed of this machine."""

import asyncio
import importlib.util
import time
from itertools import islice
from typing import Final

from pydantic import BaseModel, ConfigDict

from tagbus.models.data.corpus import Corpus, tagged
from tagbus.models.data.texts import text_of
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder

# Texts that are encoded to learn how fast that is.
SAMPLE: Final = 64


class Facts(BaseModel):
    """Numbers of tags, of training and validation contents with a tag, and of test contents; texts that the packaged
    encoder takes in a CPU second; whether label trees can be trained here."""

    model_config = ConfigDict(frozen=True)

    tags: int
    contents: int
    validation: int
    test: int
    texts_a_second: float
    omikuji: bool


def facts(corpus: Corpus) -> Facts:
    """Count the corpus, and encode some of its texts."""
    some = [text_of(item) for item in islice(corpus.exemplars("train"), SAMPLE)]
    return Facts(
        tags=len(corpus.tags()),
        contents=sum(1 for _ in tagged(corpus, "train")),
        validation=sum(1 for _ in tagged(corpus, "val")),
        test=sum(1 for _ in corpus.exemplars("test")),
        texts_a_second=round(asyncio.run(_speed(some)), 1) if some else 0.0,
        omikuji=importlib.util.find_spec("omikuji") is not None,
    )


async def _speed(texts: list[str]) -> float:
    encoder = OnnxEncoder(default_folder(), 1)
    try:
        await encoder.encode(texts[:8])
        # Of a core, as all estimates are: by the clock a busy machine encoded 4 texts a second, and 181 a minute later,
        # and what was left out for that would have gained 9 points of nDCG@5.
        started = time.process_time()
        await encoder.encode(texts)
        return len(texts) / max(1e-6, time.process_time() - started)
    finally:
        await encoder.close()
