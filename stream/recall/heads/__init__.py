"""The classifier heads component: the model in-process or on Triton."""

import asyncio
from typing import Final

from pydantic import Field

from tagbus.stream.recall.component import ComponentOf, Part, ServedSettings, Surroundings
from tagbus.stream.recall.heads.model import NAME as NAME
from tagbus.stream.recall.heads.model import HeadsRecall, read_manifest


class HeadsSettings(ServedSettings):
    """`folder` holds heads.json, words.json and, if the model runs in-process, heads.onnx."""

    model: str = Field(NAME, min_length=1, description="Triton's name of the model")


async def _open(section: HeadsSettings, into: Surroundings) -> Part:
    if section.folder is None:
        raise ValueError("heads without a folder are off")
    if section.kind == "in_process":
        threads = into.settings.encoder.threads or 1
        recall = await asyncio.to_thread(HeadsRecall.load, section.folder, into.release.name, threads)
    else:
        try:
            from tagbus.stream.recall.heads.triton import open_heads
        except ImportError as error:
            raise section.origin(NAME).without_client(error) from None
        recall = await open_heads(section.folder, into.release.name, section, into.settings.encoder)
    return Part(recallers=(recall,), knows=frozenset(recall.manifest.tags), close=recall.close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=HeadsSettings,
    version=lambda section: None if section.folder is None else read_manifest(section.folder).name,
    open=_open,
    lists=(NAME,),
)
