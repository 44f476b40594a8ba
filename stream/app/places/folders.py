"""Folders of releases, and the settings of one of several releases."""

from pathlib import Path

from tagbus.stream.app.components import brought
from tagbus.stream.config import Settings
from tagbus.stream.config.base.environment import named
from tagbus.stream.contract.release import Release, Served
from tagbus.stream.encoder.release import RELEASE, default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch


def model_folder(settings: Settings) -> Path:
    """The folder of model, tokenizer and release.json."""
    return settings.encoder.folder or default_folder()


def base_release(settings: Settings) -> Release:
    """The release of encoder.folder, or the one in the package. Raises as `load_release` does, with the setting."""
    with named("encoder.folder", settings.encoder.folder, settings.releases.folder):
        return load_release(model_folder(settings))


def release_folder(settings: Settings, name: str) -> Path:
    """The folder of a release: releases.folder/NAME, or encoder.folder. Raises ReleaseMismatch."""
    place = settings.releases.folder
    if place is not None and (place / name / RELEASE).exists():
        return place / name
    if base_release(settings).name == name:
        return model_folder(settings)
    expected = "TAGBUS_RELEASES__FOLDER to hold it" if place is None else f"{place / name}"
    raise ReleaseMismatch(f"release {name} has no folder here, expected {expected}")


def snapshot_folder(settings: Settings, name: str) -> Path | None:
    """Where the builder writes the memory snapshot of a release; None without releases.folder."""
    return None if settings.releases.folder is None else settings.releases.folder / name / "memory"


def settings_of(settings: Settings, folder: Path, served: Served | None) -> Settings:
    """The settings of one of several releases: its folder, and its model and version on Triton.

    The calibration and the trained components of the settings belong to the release of encoder.folder only; other
    releases bring their own in subfolders named after the components.
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


def in_process(settings: Settings) -> Settings:
    """The settings with an in-process memory: `hnsw` if they ask for it, else `exact`."""
    if settings.memory.kind == "hnsw":
        return settings
    return settings.model_copy(update={"memory": settings.memory.model_copy(update={"kind": "exact"})})
