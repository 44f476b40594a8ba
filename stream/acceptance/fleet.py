"""The workers of an acceptance run, and the writer of a shared memory: processes that are killed and started again."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Literal

from tagbus.stream.acceptance.place import Place
from tagbus.stream.config import PREFIX
from tagbus.stream.local.worker import LocalWorker

# Of a member that was killed for good.
SESSION_SECONDS: Final = "10"


@dataclass(slots=True)
class Member:
    """One process, started again when it has ended, as an orchestrator does."""

    place: Place
    command: Literal["run", "index"]
    variables: Mapping[str, str]
    stack: ExitStack = field(default_factory=ExitStack)
    process: LocalWorker | None = None
    starts: int = 0

    def start(self) -> LocalWorker:
        """Start it, after the one before has ended."""
        self.stack.close()
        self.process = self.stack.enter_context(LocalWorker(self.place.settings, self.variables, self.command))
        self.starts += 1
        return self.process

    def kill(self) -> None:
        """SIGKILL, and start it again."""
        if self.process is not None:
            self.process.process.kill()
            self.process.process.wait()
        self.start()

    def environment(self) -> Mapping[str, str]:
        """What a command is started with that stands beside it; this process's before it is started."""
        return os.environ if self.process is None else self.process.environment

    def keep(self) -> None:
        """Start it again if it has ended."""
        if self.process is not None and self.process.process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        if self.process is not None:
            self.process.stop()
        self.stack.close()
        self.process = None


class Fleet:
    """`size` workers, and an indexer where the memory is shared; a context manager that kills what runs at its end."""

    def __init__(self, place: Place, variables: Mapping[str, str], size: int) -> None:
        self._place = place
        self._variables = dict(variables)
        self.indexer = Member(place, "index", variables) if place.settings.memory.kind == "server" else None
        self.workers = [self._worker(number, {}) for number in range(size)]
        self._next = 0

    def _worker(self, number: int, more: Mapping[str, str]) -> Member:
        own = {f"{PREFIX}KAFKA__INSTANCE": f"{self._place.prefix}-{number}"}
        if self._place.settings.kafka.group_protocol == "classic":
            # Its successor takes over at once. KIP-848 makes it wait for the end of the session instead.
            own |= {f"{PREFIX}KAFKA__MEMBERSHIP": "static", f"{PREFIX}KAFKA__SESSION_SECONDS": SESSION_SECONDS}
        return Member(self._place, "run", {**self._variables, **own, **more})

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all():
            one.stack.close()

    def start(self) -> None:
        """Start all, and wait until they are ready."""
        for one in self._all():
            one.start().wait_until_ready()

    def kill(self) -> None:
        """Kill the next worker."""
        self.workers[self._next % len(self.workers)].kill()
        self._next += 1

    def keep(self) -> None:
        """Start again what has ended."""
        for one in self._all():
            one.keep()

    def restart(self, more: Mapping[str, str]) -> None:
        """Stop the workers, and start them with more settings."""
        for one in self.workers:
            one.stop()
        self.workers = [self._worker(number, more) for number in range(len(self.workers))]
        for one in self.workers:
            one.start().wait_until_ready()

    def _all(self) -> list[Member]:
        return [*([self.indexer] if self.indexer else []), *self.workers]
