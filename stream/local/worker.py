"""A worker as a child process, started with `tagbus run`, `feedback`, `index` or `views` as users do, for the demo,
benchmarks and tests."""

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tagbus.stream.config import PREFIX, Settings
from tagbus.stream.errors import DependencyDown, Fatal
from tagbus.stream.local.child import free_ports

# Maximum time without progress of the memory: on two cores at a load of 20 it read 1,500 of 3,500 records in five
# minutes.
READY_SECONDS = 300.0
POLL_SECONDS = 0.25
TAIL_LINES = 15
REMAINING = re.compile(r"^tagbus_memory_remaining_offsets ([0-9.e+]+)$", re.MULTILINE)


class LocalWorker:
    """One worker; a context manager that starts and stops it. Its log is a temporary file. `environment`: the
    environment of its process."""

    def __init__(
        self,
        settings: Settings,
        extra: Mapping[str, str] | None = None,
        command: Literal["run", "feedback", "index", "views"] = "run",
    ) -> None:
        """Uses the addresses, names and delivery of `settings`, and `extra` environment variables."""
        self._command = command
        (self.port,) = free_ports(1)
        kafka = settings.kafka
        self.environment: Mapping[str, str] = {
            # Drop settings of the caller's environment, which would configure a different worker.
            **{name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)},
            "TAGBUS_KAFKA__BROKERS": kafka.brokers,
            "TAGBUS_KAFKA__DELIVERY": kafka.delivery,
            "TAGBUS_KAFKA__GROUP": kafka.group,
            "TAGBUS_KAFKA__INSTANCE": kafka.instance,
            "TAGBUS_ENCODER__KIND": settings.encoder.kind,
            "TAGBUS_ENCODER__ADDRESS": settings.encoder.address,
            "TAGBUS_HEALTH__PORT": str(self.port),
            **{f"TAGBUS_TOPICS__{name.upper()}": str(value) for name, value in settings.topics},
            **(extra or {}),
        }
        self._log = tempfile.NamedTemporaryFile(prefix="tagbus-worker-", suffix=".log")  # noqa: SIM115 - lives as long as this object
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            with _signals_deferred():
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tagbus.stream.cli", self._command],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The child process. Raises Fatal before it is started."""
        if self._process is None:
            raise Fatal("this worker has not been started")
        return self._process

    def wait_until_ready(self, remaining: Callable[[int], None] = lambda _: None) -> None:
        """Wait for /readyz. `remaining` receives the number of offsets of the memory topics left to read.

        Raises DependencyDown with the end of its log if it exits early or makes no progress for READY_SECONDS.
        """
        deadline = time.monotonic() + READY_SECONDS
        last = math.inf
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self._get("/readyz") is not None:
                remaining(0)
                return
            found = REMAINING.search(self._get("/metrics") or "")
            left = float(found[1]) if found is not None else math.inf
            if 0 < left < math.inf:
                remaining(int(left))
            if left < last:
                last, deadline = left, time.monotonic() + READY_SECONDS
            try:
                self.process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        raise DependencyDown(f"the worker did not become ready; the end of its log:\n{self.tail()}")

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and wait until it has drained. Returns its exit code. Raises Fatal if it is not 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        if code != 0:
            raise Fatal(f"the worker ended with code {code}; the end of its log:\n{self.tail()}")
        return code

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(Path(self._log.name).read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return bytes(answer.read()).decode()
        except (urllib.error.URLError, OSError):
            return None


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer the handlers of SIGTERM and SIGINT to the end of the block: an exception from one while a child is being
    started would leak the child. Python runs handlers only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    kept = {
        name: signal.signal(name, lambda number, _: came.append(number)) for name in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for name, handler in kept.items():
            signal.signal(name, signal.SIG_DFL if handler is None else handler)
    for number in came:
        signal.raise_signal(number)
