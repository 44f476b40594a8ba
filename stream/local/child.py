"""A server as a child process with a folder and a log, all cleaned up when this process ends, even if it is killed."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from tagbus.stream.errors import DependencyDown, UserError

HOST: Final = "127.0.0.1"
STOP_S: Final = 20.0
PORT_TRIES: Final = 3
# Start attempts of a server that may fail by chance.
UNLUCKY_TRIES: Final = 4
LOG: Final = "log"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a server's own choice

# Kills the child's process group and removes its files when this process ends in any way: the pipe then closes, and
# read returns. It reads the pid from a line, or an empty line for no child. PR_SET_PDEATHSIG exists only on Linux, and
# would kill the child together with the thread that started it.
_WATCHER = """
pid=
while read -r line; do pid=$line; done
tries=0
if [ -n "$pid" ]; then
  kill -KILL "-$pid"
  while kill -0 "-$pid" 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
rm -rf -- "$1" "$2/${1##*/}"*
"""


class Child(ABC):
    """A server process; a context manager that starts and stops it.

    Subclasses define how: `_install` its requirements, `_place` its ports, `_prepare` its folder, then `_command` and
    `_answers`. `deadline_s` bounds each start. On close, and also if this process is killed, the server is killed and
    its folder removed, with shared memory under the folder's name. Ctrl-C in the terminal does not reach the server;
    the context manager stops it.
    """

    name: ClassVar[str]
    # The log message for a port that another process has taken meanwhile.
    taken: ClassVar[str] = "Address already in use"
    # The log message of a start that failed by chance and may succeed when retried; empty: none.
    unlucky: ClassVar[str] = ""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.folder = Path()
        self.address = ""
        self._port_tries = PORT_TRIES
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _install(self) -> None:
        """Install its requirements, downloading what is missing."""

    @abstractmethod
    def _place(self) -> None:
        """Choose free ports and set `address`; called again if a port was taken meanwhile."""

    @abstractmethod
    def _prepare(self) -> None:
        """Fill the folder, once, after `_place`."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments."""

    def _variables(self) -> Mapping[str, str] | None:
        """Its environment; None: inherit this process's."""
        return None

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this server answers at the address, rather than another one that took the port."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The pid of its process, a process group leader. Raises UserError if it is not running."""
        if self._process is None:
            raise UserError(f"this {self.name} is not running; start it first")
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system CPU seconds of the server and its child processes (proc(5), Linux only)."""
        group = self.pid
        if not Path("/proc/self/stat").exists():
            raise UserError(f"the CPU time of {self.name} is read from /proc, which this system does not have")
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(fields[2]) == group:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Download if needed, start, and wait until it answers.

        Raises UserError if it cannot run here, DependencyDown with the end of the log if it does not start.
        """
        if self._watcher is not None:
            raise UserError(f"this {self.name} is already started; use restart")
        self._install()
        self.folder = Path(tempfile.mkdtemp(prefix=f"tagbus-{self.name.rpartition(' ')[2].lower()}-"))
        try:
            self._watcher = subprocess.Popen(
                ["sh", "-c", _WATCHER, "sh", str(self.folder), str(SHARED_MEMORY)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._place()
            self._prepare()
            self._launch_on_free_ports()
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Start it again on the same ports and data, after `kill` or `stop`; a running server is stopped first."""
        if self._watcher is None:
            raise UserError(f"this {self.name} was never started, or is closed")
        self.stop()
        self._launch()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 20 s. Its folder is kept until `close`."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self.kill()

    def kill(self) -> None:
        """SIGKILL the whole process group, to simulate a power loss."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._tell("")
            for left in SHARED_MEMORY.glob(f"{self.folder.name}*"):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop it and remove its folder. Idempotent."""
        self.stop()
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait()
            self._watcher = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log since the last start, at most 8 kB."""
        try:
            text = (self.folder / LOG).read_bytes()[self._log_start :]
        except OSError:
            return ""
        return tail(text.decode(errors="replace"), lines)

    def _launch_on_free_ports(self) -> None:
        for left in reversed(range(self._port_tries)):
            try:
                self._launch()
                return
            except DependencyDown as error:
                if self.taken not in str(error) or not left:
                    raise
                self._place()

    def _launch(self) -> None:
        for left in reversed(range(UNLUCKY_TRIES)):
            try:
                self._launch_once()
                return
            except DependencyDown as error:
                if not self.unlucky or self.unlucky not in str(error) or not left:
                    raise

    def _launch_once(self) -> None:
        with (self.folder / LOG).open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                env=self._variables(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._tell(str(self._process.pid))
        end = time.monotonic() + self.deadline_s
        while not self._answers():
            code = self._process.poll()
            if code is not None:
                self.kill()  # its child processes may still be running
                raise DependencyDown(f"{self.name} exited with code {code} on startup; its log:\n{self.log_tail()}")
            if time.monotonic() > end:
                self.kill()
                raise DependencyDown(f"{self.name} is not up after {self.deadline_s:g} s; its log:\n{self.log_tail()}")
            time.sleep(0.05)

    def _tell(self, pid: str) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(BrokenPipeError):  # the watcher was killed: the server must still be stopped
                self._watcher.stdin.write(f"{pid}\n".encode())
                self._watcher.stdin.flush()


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Free ports below the ephemeral range.

    A client that keeps reconnecting to a closed port in that range can end up connected to itself, and occupy the port.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(20_000, 32_000)  # noqa: S311 no secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def reachable(address: str) -> bool:
    """Whether a port is open; checked first because clients log each refused connection."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def tail(text: str, lines: int = 20) -> str:
    """The last lines of a process's output, at most 8 kB."""
    return "\n".join(text[-8192:].splitlines()[-lines:])
