"""The component interface: how an optional part of the pipeline is named, configured and opened, and what it adds.

A component is described once, in its own file. Everything else is generic: its section of the settings
(`TAGBUS_COMPONENTS__NAME__...`), its version in every result, its scores in the evidence, its step in the path, and its
part in the fingerprint of calibrations and rankers. `app/components.py` lists them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from tagbus.stream.config import PREFIX, EncoderSettings, Section, Settings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.open import RELEASE, Origin
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.kinds import Kind
from tagbus.stream.memory.store import Memory, Payload
from tagbus.stream.recall.base import Recaller

# Receives memory's payloads of changed points of a kind; None for a removed one.
Listener = Callable[[Mapping[str, Payload | None]], Awaitable[None]]


class ComponentSettings(Section):
    """The settings section of a component. A component is off by default."""


class TrainedSettings(ComponentSettings):
    """The section of a trained component, which is on if a folder is set."""

    folder: Path | None = Field(None, description="the folder that `tagbus train` wrote; unset: off")


class ServedSettings(TrainedSettings):
    """The section of a component whose model runs in-process or on Triton.

    Deadline, requests in flight and TLS are those of `encoder`.
    """

    kind: Literal["in_process", "triton"] = Field("in_process", description="where the model runs")
    address: str | None = Field(None, description="Triton's gRPC, host:port, several with commas; unset: the encoder's")
    model: str = Field(min_length=1, description="Triton's name of the model")
    version: int = Field(1, ge=1, description="Triton's version of the model, which every request names")

    def at(self, encoder: EncoderSettings) -> EncoderSettings:
        """Connection settings for the model on Triton; unset fields come from the encoder."""
        own = {"kind": self.kind, "address": self.address or encoder.address}
        return encoder.model_copy(update={**own, "model": self.model, "version": self.version})

    def origin(self, name: str) -> Origin:
        """The names of these settings, for the component `name`."""
        address = RELEASE.address if self.address is None else f"components.{name}.address"
        return Origin(variable(name, "kind"), address)


S = TypeVar("S", bound=ComponentSettings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The environment a component is opened in.

    `versions`: the components that are on and that a ranker may read, by name, in registry order. `lists`: the lists
    that their recallers provide to a ranker. `open_memory` opens a new or saved memory of these kinds for vectors of
    another release.
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
    """The default `close`: nothing to free."""


@dataclass(frozen=True, slots=True)
class Part:
    """An open component and its contributions. A stage that needs more subclasses it.

    `listeners`, by kind of memory, receive each change of its points before a taxonomy version includes it. `reads`:
    the kinds of memory that it reads for a content besides recall's results. `knows`: the ids of the tags that its
    model was trained on, if it scores each of them for every content. `close` frees resources; no call may be in
    flight.
    """

    recallers: tuple[Recaller, ...] = ()
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    replicas: tuple[Replica, ...] = ()
    reads: frozenset[str] = frozenset()
    knows: frozenset[str] = frozenset()
    close: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Configured:
    """A component with its parsed settings section.

    `version` identifies the configured instance, None if the component is off. `open` loads it. It raises UserError,
    ReleaseMismatch if it was trained on something else, DependencyDown if a server does not answer.
    """

    section: ComponentSettings
    version: str | None
    open: Callable[[Surroundings], Awaitable[Part]]


class Component(Protocol):
    """A component as the registry sees it."""

    @property
    def name(self) -> str:
        """Its name in settings, versions, evidence and path."""

    @property
    def settings(self) -> type[ComponentSettings]:
        """The model of its settings section."""

    @property
    def lists(self) -> tuple[str, ...]:
        """The names of the lists that its recallers provide to a ranker."""

    @property
    def step(self) -> str:
        """Its step in the path: its name, unless a stage of another name runs it."""

    @property
    def needs(self) -> str | None:
        """The component that it requires, if any."""

    @property
    def calibration(self) -> str | None:
        """The file in its folder with the whole path's calibration, if it has one."""

    def section(self, given: Mapping[str, object]) -> ComponentSettings:
        """Parse its section from the fields that are set.

        Raises UserError that names the variable, its value and the expected value.
        """

    def configure(self, given: Mapping[str, object]) -> Configured:
        """Parse its section and read the version of the folder that it names. Blocks.

        Raises as `section` does, and UserError for a folder that does not hold this component.
        """


@dataclass(frozen=True, slots=True)
class ComponentOf(Generic[S]):
    """Describes a component whose section is an S; `version` and `open` are those of `Configured`."""

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
            reason = problem["msg"]
            if problem["type"] == "extra_forbidden":
                reason += f", expected {' or '.join(self.settings.model_fields)}"
            raise UserError(f"{variable(self.name, field)}={shorten(problem['input'])}: {reason}") from None

    def configure(self, given: Mapping[str, object]) -> Configured:
        """See `Component`."""
        section = self.section(given)
        return Configured(section, self.version(section), partial(self.open, section))


def without_golden(path: Path, name: str, command: str) -> UserError:
    """The error for kind triton with a manifest without golden answers; `command` writes it."""
    return UserError(
        f"{path}: golden: missing, so no server can be told from others; run `{command}` again, which exports them, "
        f"or set {variable(name, 'kind')}=in_process"
    )


def variable(name: str, field: str) -> str:
    """The environment variable of a component's field."""
    return f"{PREFIX}COMPONENTS__{name}__{field}".upper()
