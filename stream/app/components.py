"""The registry of components: the optional parts of the pipeline, in path order."""

import importlib.resources
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

from tagbus.stream.config import PREFIX, Settings
from tagbus.stream.config.base import environment
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.llm import component as judge
from tagbus.stream.rank import cross_encoder, trees
from tagbus.stream.recall import gudn, heads, labeltree, second_encoder, tagvectors
from tagbus.stream.recall.component import (
    Component,
    ComponentSettings,
    Configured,
    Part,
    Surroundings,
    TrainedSettings,
    variable,
)
from tagbus.stream.recall.lexical import bm25, literal

# The step that every path has.
RECALL: Final = "recall"

REGISTRY: Final[tuple[Component, ...]] = (
    literal.COMPONENT,
    bm25.COMPONENT,
    heads.COMPONENT,
    labeltree.COMPONENT,
    tagvectors.COMPONENT,
    gudn.COMPONENT,
    second_encoder.COMPONENT,
    trees.COMPONENT,
    cross_encoder.COMPONENT,
)


@dataclass(frozen=True, slots=True)
class Components:
    """The components that are on, in registry order."""

    on: Sequence[tuple[Component, Configured]]

    @classmethod
    def of(cls, settings: Settings, registry: Sequence[Component] = REGISTRY) -> "Components":
        """Read the sections of the settings and the folders that they name. Blocks.

        Raises UserError for an unknown component, as `Component.configure` does, and for a component whose prerequisite
        is off.
        """
        _check_names(settings, registry)
        configured = [(one, _configured(one, settings)) for one in registry]
        found = cls(
            [*((one, made) for one, made in configured if made.version is not None), *judge.configured(settings)]
        )
        for one, _ in found.on:
            if one.needs is not None and one.needs not in found.versions:
                raise UserError(
                    f"component {one.name} is on, but {one.needs}, which alone makes use of it, is off: set "
                    f"{variable(one.needs, 'folder')} too, or unset {variable(one.name, 'folder')}"
                )
        return found

    @property
    def versions(self) -> dict[str, str]:
        """The version of each component by name."""
        return {one.name: made.version for one, made in self.on if made.version is not None}

    @property
    def recalling(self) -> dict[str, str]:
        """The versions of the components that a ranker may read. The judge comes after the ranker, so it is not one."""
        return {name: version for name, version in self.versions.items() if name != judge.NAME}

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists that the recallers provide to a ranker, in order."""
        return tuple(chain.from_iterable(one.lists for one, _ in self.on))

    @property
    def scoring(self) -> str:
        """The path of a content that skips no step, as a calibration names it: `recall+literal+rank`."""
        return "+".join((RECALL, *(one.step for one, _ in self.on)))

    @property
    def before_judge(self) -> str:
        """The path of a content that the judge is not asked about, as a calibration names it."""
        return "+".join(step for step in self.scoring.split("+") if step != judge.NAME)

    def fingerprint(self, release: str, path: str | None = None) -> Fingerprint:
        """What a calibration of `path` (default: the whole path) is fitted to."""
        steps = (path or self.scoring).split("+")
        took_part = {one.name: made.version for one, made in self.on if one.step in steps and made.version}
        return Fingerprint(release, "+".join(steps), took_part)

    @property
    def calibration(self) -> Path | None:
        """The whole path's curve: that of the last component that has one. None if there is none."""
        for one, made in reversed(self.on):
            if one.calibration is not None and isinstance(made.section, TrainedSettings) and made.section.folder:
                path = made.section.folder / one.calibration
                return path if path.exists() else None
        return None

    async def open(self, surroundings: Surroundings, exits: AsyncExitStack) -> dict[str, Part]:
        """Open all components, by name; `exits` closes them. Raises as `Configured.open` does."""
        into = replace(surroundings, versions=self.recalling, lists=self.lists)
        parts = {}
        for one, made in self.on:
            with _naming_folder(one, made.section, into.settings):
                parts[one.name] = part = await made.open(into)
            exits.push_async_callback(part.close)
        return parts


def effective(settings: Settings, registry: Sequence[Component] = REGISTRY) -> Settings:
    """The settings with every field of every component, as `tagbus config` prints them. Raises UserError."""
    _check_names(settings, registry)
    sections = {one.name: one.section(settings.components.get(one.name, {})) for one in registry}
    shown = {name: section.model_dump(mode="json") for name, section in sections.items()}
    return settings.model_copy(update={"components": shown})


def switched(settings: Settings, changes: Mapping[str, Mapping[str, object]]) -> Settings:
    """The settings with some fields of components changed; the other fields of their sections stay."""
    merged = {name: {**settings.components.get(name, {}), **fields} for name, fields in changes.items()}
    return settings.model_copy(update={"components": {**settings.components, **merged}})


def without(settings: Settings, *names: str) -> Settings:
    """The settings with these components switched off."""
    left = {name: fields for name, fields in settings.components.items() if name not in names}
    return settings.model_copy(update={"components": left})


def only(settings: Settings, *names: str) -> Settings:
    """The settings with only these components on; their sections are unchanged."""
    left = {name: fields for name, fields in settings.components.items() if name in names}
    return settings.model_copy(update={"components": left})


def folder_of(settings: Settings, name: str, registry: Sequence[Component] = REGISTRY) -> Path | None:
    """The folder of a component, None if it is off or has none. Raises UserError."""
    component = next(one for one in registry if one.name == name)
    section = component.section(settings.components.get(name, {}))
    return section.folder if isinstance(section, TrainedSettings) else None


def brought(settings: Settings, folder: Path, version: int | None) -> Settings:
    """The settings of one of several releases: each trained component is read from the subfolder of its name.

    `version`: the version of the release's models on Triton, if served there.
    """
    changes: dict[str, dict[str, object]] = {}
    for one in REGISTRY:
        if issubclass(one.settings, TrainedSettings):
            own = folder / one.name
            changes[one.name] = {"folder": own if own.is_dir() else None}
            if version is not None and "version" in one.settings.model_fields:
                changes[one.name]["version"] = version
    return switched(settings, changes)


def packaged() -> dict[str, str]:
    """Environment variables that switch on the components shipped in the package; empty if there are none."""
    folder = Path(str(importlib.resources.files("tagbus.triton_repo")))
    ranker = folder / trees.COMPONENT.name / "1"
    if not (ranker / trees.MANIFEST).exists():
        return {}
    names = {*trees.read_manifest(ranker).components, trees.COMPONENT.name}
    return dict(_switch(one, folder / one.name / "1") for one in REGISTRY if one.name in names)


def _switch(component: Component, folder: Path) -> tuple[str, str]:
    if issubclass(component.settings, TrainedSettings):
        return variable(component.name, "folder"), str(folder)
    return variable(component.name, "enabled"), "true"


def _configured(component: Component, settings: Settings) -> Configured:
    given = settings.components.get(component.name, {})
    section = component.section(given)
    # One of several releases has its own folder of the component, or none and so no component; the other settings are
    # shared by all releases.
    alone = isinstance(section, TrainedSettings) and "folder" not in given and settings.releases.folder is None
    if alone and (idle := sorted(section.model_dump(exclude_defaults=True))):
        raise UserError(
            f"{variable(component.name, idle[0])}={shorten(given[idle[0]])}: it does nothing without "
            f"{variable(component.name, 'folder')}, the folder that `tagbus train` wrote"
        )
    with _naming_folder(component, section, settings):
        return component.configure(given)


def _naming_folder(
    component: Component, section: ComponentSettings, settings: Settings
) -> AbstractContextManager[None]:
    folder = section.folder if isinstance(section, TrainedSettings) else None
    return environment.named(f"components.{component.name}.folder", folder, settings.releases.folder)


def _check_names(settings: Settings, registry: Sequence[Component]) -> None:
    known = [one.name for one in registry]
    if strange := sorted(settings.components.keys() - set(known)):
        raise UserError(f"{PREFIX}COMPONENTS__{strange[0].upper()}: no such component, expected {', '.join(known)}")
