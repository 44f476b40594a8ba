"""The guided classifier as a component: the model in-process or on Triton."""

import asyncio
from typing import Final

from pydantic import Field

from tagbus.stream.recall.component import ComponentOf, Part, ServedSettings, Surroundings
from tagbus.stream.recall.gudn.model import NAME as NAME
from tagbus.stream.recall.gudn.model import GuidedRecall, read_manifest


class GudnSettings(ServedSettings):
    """`folder` holds gudn.json, tokenizer.json and, if the model runs in-process, model.onnx."""

    model: str = Field(NAME, min_length=1, description="Triton's name of the model")


async def _open(section: GudnSettings, into: Surroundings) -> Part:
    if section.folder is None:
        raise ValueError("a guided classifier without a folder is off")
    if section.kind == "in_process":
        recall = await asyncio.to_thread(GuidedRecall.load, section.folder, into.settings.encoder.threads or 1)
    else:
        try:
            from tagbus.stream.recall.gudn.triton import open_guided
        except ImportError as error:
            raise section.origin(NAME).without_client(error) from None
        recall = await open_guided(section.folder, section, into.settings.encoder)
    return Part(recallers=(recall,), knows=frozenset(recall.manifest.tags), close=recall.close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=GudnSettings,
    version=lambda section: None if section.folder is None else read_manifest(section.folder).name,
    open=_open,
    lists=(NAME,),
)
