"""The classifier heads on Triton: bags and vectors are built here; the model runs there."""

import asyncio
from pathlib import Path

from tagbus.stream.config import EncoderSettings
from tagbus.stream.recall.classifier.triton import TritonModel
from tagbus.stream.recall.component import ServedSettings, without_golden
from tagbus.stream.recall.heads.golden import questions
from tagbus.stream.recall.heads.model import MANIFEST, NAME, HeadsRecall, feed_of, read_known


async def open_heads(folder: Path, release: str, section: ServedSettings, encoder: EncoderSettings) -> HeadsRecall:
    """The heads of a folder on Triton, for an encoder's release; the folder need not hold heads.onnx.

    Fields unset in `section` come from `encoder`. Raises as `HeadsRecall.load` and `TritonClient.open` do, and
    UserError for heads.json without golden answers.
    """
    manifest, vocabulary = await asyncio.to_thread(read_known, folder, release)
    if manifest.golden is None:
        raise without_golden(folder / MANIFEST, NAME, "tagbus train heads")
    asked = feed_of(*questions(len(vocabulary.frequencies), manifest.dimension))
    size, setting = (len(manifest.tags), manifest.best), section.origin(NAME).address
    model = TritonModel(manifest.name, size, (manifest.golden, [asked]), section.at(encoder), setting)
    await model.open()
    return HeadsRecall(manifest, vocabulary, model)
