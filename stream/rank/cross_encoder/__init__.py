"""The cross-encoder component: the model in this process or on Triton."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from pydantic import Field

from tagbus.stream.rank.cross_encoder.model import NAME as NAME
from tagbus.stream.rank.cross_encoder.model import CrossEncoder, OnnxCrossEncoder, read_manifest
from tagbus.stream.recall.component import ComponentOf, Part, ServedSettings, Surroundings


class CrossEncoderSettings(ServedSettings):
    """`folder` holds cross_encoder.json, tokenizer.json and, where the model runs in the process, model.onnx."""

    model: str = Field(NAME, min_length=1, description="Triton's name of the model")


@dataclass(frozen=True, slots=True)
class CrossEncoderPart(Part):
    """The cross-encoder, for the stage after `rank`."""

    cross_encoder: CrossEncoder = field(kw_only=True)


async def _open(section: CrossEncoderSettings, into: Surroundings) -> Part:
    if section.folder is None:
        raise ValueError("a cross-encoder without a folder is off")
    if section.kind == "in_process":
        here = await asyncio.to_thread(OnnxCrossEncoder.load, section.folder, into.settings.encoder.threads)
        return CrossEncoderPart(cross_encoder=here, close=here.close)
    try:
        from tagbus.stream.rank.cross_encoder.triton import open_cross_encoder
    except ImportError as error:
        raise section.origin(NAME).without_client(error) from None
    there = await open_cross_encoder(section, into.settings.encoder)
    return CrossEncoderPart(cross_encoder=there, close=there.close)


COMPONENT: Final = ComponentOf(
    name=NAME,
    settings=CrossEncoderSettings,
    version=lambda section: None if section.folder is None else read_manifest(section.folder).name,
    open=_open,
    needs="ranker",
)
