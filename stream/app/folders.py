"""Where releases lie, and the settings of one among several."""

from pathlib import Path

from tagbus.stream.app.components import brought
from tagbus.stream.config import Settings
from tagbus.stream.contract.release import Served
from tagbus.stream.encoder.release import RELEASE, default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch


def model_folder(settings: Settings) -> Path:
    """Where model, tokenizer and release lie."""
    return settings.encoder.folder or default_folder()


def release_folder(settings: Settings, name: str) -> Path:
    """Where the release of that name lies: releases.folder/NAME, or encoder.folder. Raises ReleaseMismatch."""
    place = settings.releases.folder
    if place is not None and (place / name / RELEASE).exists():
        return place / name
    if load_release(model_folder(settings)).name == name:
        return model_folder(settings)
    expected = "TAGBUS_RELEASES__FOLDER to hold it" if place is None else f"{place / name}"
    raise ReleaseMismatch(f"release {name} has no folder here, expected {expected}")


def snapshot_folder(settings: Settings, name: str) -> Path | None:
    """Where the builder leaves the memory of a release, None where releases have no folder."""
    return None if settings.releases.folder is None else settings.releases.folder / name / "memory"


def settings_of(settings: Settings, folder: Path, served: Served | None) -> Settings:
    """The settings of one release among several: its folder, and where Triton has it.

    A calibration and trained components that the settings name belong to the release of encoder.folder alone; another
    brings its own in subfolders with the components' names.
    """
    if folder == model_folder(settings):
        return settings
    own: dict[str, object] = {"folder": folder}
    if served is not None:
        own |= {"model": served.model, "version": served.version}
    changed = settings.model_copy(
        update={
            "encoder": settings.encoder.model_copy(update=own),
            "tagger": settings.tagger.model_copy(update={"calibration": None}),
        }
    )
    return brought(changed, folder, None if served is None else served.version)


def exact(settings: Settings) -> Settings:
    """The same with a memory of this process's own."""
    return settings.model_copy(update={"memory": settings.memory.model_copy(update={"kind": "exact"})})
