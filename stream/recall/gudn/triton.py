"""The guided classifier on Triton: texts are tokenised here, the model runs there."""

import asyncio
from pathlib import Path

from tagbus.stream.config import EncoderSettings
from tagbus.stream.recall.classifier.triton import TritonModel
from tagbus.stream.recall.component import ServedSettings, without_golden
from tagbus.stream.recall.gudn.model import COMMAND, MANIFEST, NAME, GuidedRecall, questions, read_known


async def open_guided(folder: Path, section: ServedSettings, encoder: EncoderSettings) -> GuidedRecall:
    """The model of a folder on Triton; the folder need not hold model.onnx.

    What `section` leaves out is as in `encoder`. Raises as `read_known` and `TritonClient.open` do, and UserError for
    gudn.json without golden answers.
    """
    manifest, reader = await asyncio.to_thread(read_known, folder)
    if manifest.golden is None:
        raise without_golden(folder / MANIFEST, NAME, COMMAND)
    size, setting = (len(manifest.tags), manifest.best), section.origin(NAME).address
    model = TritonModel(manifest.name, size, (manifest.golden, questions(reader)), section.at(encoder), setting)
    await model.open()
    return GuidedRecall(manifest, reader, model)
