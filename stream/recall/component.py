"""What an optional part of the pipeline is: how it is named, configured and opened, and what it contributes.

A component is described once, in its own file. Everything else is generic: its section of the settings
(`TAGBUS_COMPONENTS__NAME__...`), its version in every result, its scores in the evidence, its place in the path, and
what
a calibration or a ranker was fitted over. `app/components.py` lists them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from tagbus.stream.config import PREFIX, EncoderSettings, Section, Settings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.kinds import Kind
from tagbus.stream.memory.store import Memory, Payload
from tagbus.stream.recall.base import Recaller

# Learns what memory holds of tags now; None: it holds them no longer.
TagListener = Callable[[Mapping[str, Payload | None]], Awaitable[None]]


class ComponentSettings(Section):
    """The section of a component. It is off unless its settings say otherwise."""


class TrainedSettings(ComponentSettings):
    """The section of a component that was trained: it is on where a folder is named."""

    folder: Path | None = Field(None, description="what `tagbus train` wrote; unset: off")


class ServedSettings(TrainedSettings):
    """The section of a component with a model that runs in the process or on Triton.

    Deadline, requests in flight and TLS are those of `encoder`.
    """

    kind: Literal["in_process", "triton"] = Field("in_process", description="where the model runs")
    address: str | None = Field(None, description="Triton's gRPC, host:port, several with commas; unset: the encoder's")
    model: str = Field(min_length=1, description="Triton's name of the model")
    version: int = Field(1, ge=1, description="Triton's version of the model, which every request names")

    def at(self, encoder: EncoderSettings) -> EncoderSettings:
        """How the model is reached on Triton: what this section does not say is as the encoder has it."""
        own = {"kind": self.kind, "address": self.address or encoder.address}
        return encoder.model_copy(update={**own, "model": self.model, "version": self.version})


S = TypeVar("S", bound=ComponentSettings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a component is opened into.

    `versions`: the components that are on, by name, in the order of the registry. `lists`: what their recallers give a
    ranker. `open_memory` opens an empty or kept memory of these kinds for vectors of another release.
    """

    settings: Settings
    release: Release
    memory: Memory
    open_memory: Callable[[Release, Mapping[str, Kind]], Awaitable[Memory]]
    versions: Mapping[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replica:
    """A second memory of the same records, encoded by another encoder."""

    encoder: Encoder
    memory: Memory


async def _nothing() -> None:
    """A part that holds nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """An open component: what it contributes. A stage's own kind of part adds what that stage runs.

    `listeners` learn each change of a tag before a taxonomy version shows it. `close` frees what it holds; no call may
    be in flight.
    """

    recallers: tuple[Recaller, ...] = ()
    listeners: tuple[TagListener, ...] = ()
    replicas: tuple[Replica, ...] = ()
    close: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Configured:
    """A component with its section of the settings.

    `version` says which one the section names, None where it is off. `open` loads it: raises UserError, ReleaseMismatch
    where it was trained over something else, DependencyDown where a server does not answer.
    """

    section: ComponentSettings
    version: str | None
    open: Callable[[Surroundings], Awaitable[Part]]


class Component(Protocol):
    """A component, as the registry sees it."""

    @property
    def name(self) -> str:
        """In settings, versions, evidence and path."""

    @property
    def settings(self) -> type[ComponentSettings]:
        """The model of its section."""

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of the lists that its recallers give a ranker."""

    @property
    def step(self) -> str:
        """Of the path: its own name, unless a stage of another name runs it."""

    @property
    def needs(self) -> str | None:
        """The component without which it is of no use."""

    @property
    def calibration(self) -> str | None:
        """The file in its folder that holds the curve of the whole path, where it brings one."""

    def section(self, given: Mapping[str, object]) -> ComponentSettings:
        """Its section, from the fields that were set.

        Raises UserError that names the variable, its value and what would be right.
        """

    def configure(self, given: Mapping[str, object]) -> Configured:
        """With the fields of its section as they were set. Blocks: reads what the section names.

        Raises as `section` does, and UserError for a folder that holds no such component.
        """


@dataclass(frozen=True, slots=True)
class ComponentOf(Generic[S]):
    """The description of a component whose section is an S; `version` and `open` are those of `Configured`."""

    name: str
    settings: type[S]
    version: Callable[[S], str | None]
    open: Callable[[S, Surroundings], Awaitable[Part]]
    lists: tuple[str, ...] = ()
    stage: str | None = None
    needs: str | None = None
    calibration: str | None = None

    @property
    def step(self) -> str:
        """See `Component`."""
        return self.stage or self.name

    def section(self, given: Mapping[str, object]) -> S:
        """See `Component`."""
        try:
            return self.settings.model_validate(dict(given))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = "__".join(map(str, problem["loc"]))
            raise UserError(f"{variable(self.name, field)}={shorten(problem['input'])}: {problem['msg']}") from None

    def configure(self, given: Mapping[str, object]) -> Configured:
        """See `Component`."""
        section = self.section(given)
        return Configured(section, self.version(section), partial(self.open, section))


def variable(name: str, field: str) -> str:
    """The environment variable that sets a component's field."""
    return f"{PREFIX}COMPONENTS__{name}__{field}".upper()
