"""The second encoder that the settings name: its encoder, its place in memory, and its name."""

import asyncio

from tagbus.stream.config import SecondEncoderSettings, Settings
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.errors import UserError
from tagbus.stream.memory import Memory
from tagbus.stream.recall import tagvectors
from tagbus.stream.recall.second_encoder import SecondEncoder
from tagbus.stream.recall.tagvectors import FILE, TagVectors


def alone(settings: Settings) -> Settings | None:
    """The second encoder's encoder as if it were the release's, in this process; None where there is no second
    encoder."""
    if settings.second_encoder.folder is None:
        return None
    encoder = settings.encoder.model_copy(update={"folder": settings.second_encoder.folder, "kind": "in_process"})
    return settings.model_copy(update={"encoder": encoder, "second_encoder": SecondEncoderSettings()})


def name_of(settings: Settings) -> str | None:
    """The name of the second encoder: of its release and of its tag vectors; None where there is none.

    Raises UserError for a folder that does not hold both.
    """
    folder = settings.second_encoder.folder
    return None if folder is None else f"{load_release(folder).name}+{tagvectors.read(folder)[1]}"


async def open_second_encoder(settings: Settings, memory: Memory | None) -> SecondEncoder | None:
    """The second encoder over its stores. Raises as `open_encoder` does, and UserError for vectors of another
    length."""
    own = alone(settings)
    if own is None or memory is None or (folder := own.encoder.folder) is None:
        return None
    if load_release(folder).name == load_release(settings.encoder.folder or default_folder()).name:
        raise UserError(f"TAGBUS_SECOND_ENCODER__FOLDER={folder}: it is the release itself, expected another encoder's")
    content, _ = await asyncio.to_thread(tagvectors.read, folder)
    vectors = await asyncio.to_thread(TagVectors.parse, folder / FILE, content)
    encoder = await open_encoder(own.encoder, folder)
    if (length := vectors.vectors.shape[1]) != encoder.release.dimension:
        await encoder.close()
        raise UserError(f"{folder / FILE}: vectors of {length} numbers, but {encoder.release.name} gives others")
    return SecondEncoder(encoder, memory.tags, memory.exemplars, vectors)
