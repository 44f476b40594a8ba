"""The workers of an acceptance run, and the writer of a shared memory: processes that are killed and restarted."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Literal

from tagbus.stream.acceptance.sandbox import Sandbox
from tagbus.stream.config import PREFIX
from tagbus.stream.local.worker import LocalWorker

# Session timeout, so that partitions of a killed member are soon reassigned.
SESSION_SECONDS: Final = "10"


@dataclass(slots=True)
class Member:
    """One process, restarted when it exits, as an orchestrator does."""

    sandbox: Sandbox
    command: Literal["run", "index"]
    variables: Mapping[str, str]
    stack: ExitStack = field(default_factory=ExitStack)
    process: LocalWorker | None = None
    starts: int = 0

    def start(self) -> LocalWorker:
        """Start it, after the previous process has ended."""
        self.stack.close()
        self.process = self.stack.enter_context(LocalWorker(self.sandbox.settings, self.variables, self.command))
        self.starts += 1
        return self.process

    def kill(self) -> None:
        """SIGKILL and restart it."""
        if self.process is not None:
            self.process.process.kill()
            self.process.process.wait()
        self.start()

    def environment(self) -> Mapping[str, str]:
        """The environment for a command against the same installation; this process's before it is started."""
        return os.environ if self.process is None else self.process.environment

    def keep(self) -> None:
        """Restart it if it has exited."""
        if self.process is not None and self.process.process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        if self.process is not None:
            self.process.stop()
        self.stack.close()
        self.process = None


class Fleet:
    """`size` workers, and an indexer if the memory is shared; a context manager that kills them on exit."""

    def __init__(self, sandbox: Sandbox, variables: Mapping[str, str], size: int) -> None:
        self._sandbox = sandbox
        self._variables = dict(variables)
        self.indexer = Member(sandbox, "index", variables) if sandbox.settings.memory.kind == "server" else None
        self.workers = [self._worker(number, {}) for number in range(size)]
        self._next = 0

    def _worker(self, number: int, more: Mapping[str, str]) -> Member:
        own = {f"{PREFIX}KAFKA__INSTANCE": f"{self._sandbox.prefix}-{number}"}
        if self._sandbox.settings.kafka.group_protocol == "classic":
            # The successor takes over immediately. With KIP-848 it would wait for the end of the session.
            own |= {f"{PREFIX}KAFKA__MEMBERSHIP": "static", f"{PREFIX}KAFKA__SESSION_SECONDS": SESSION_SECONDS}
        return Member(self._sandbox, "run", {**self._variables, **own, **more})

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
        """Restart the members that have exited."""
        for one in self._all():
            one.keep()

    def restart(self, more: Mapping[str, str]) -> None:
        """Stop the workers, and start them with additional settings."""
        for one in self.workers:
            one.stop()
        self.workers = [self._worker(number, more) for number in range(len(self.workers))]
        for one in self.workers:
            one.start().wait_until_ready()

    def _all(self) -> list[Member]:
        return [*([self.indexer] if self.indexer else []), *self.workers]
