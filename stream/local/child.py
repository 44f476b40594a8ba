"""A server as a child process: it has a folder and a log, and all of it ends with this process, however that ends."""

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
LOG: Final = "log"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a server's own choice

# Ends the child and the processes that it started, and removes what it left, when this process is gone, however it
# went: then the pipe closes, and read returns. It is told the pid on a line, and an empty line where there is none.
# PR_SET_PDEATHSIG would do so on Linux only, and would end the child with the thread that started it.
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
    """A context manager that starts a server and stops it.

    Whoever derives from it says how: `_install` what it needs, `_place` its ports, `_prepare` its folder, then
    `_command` and `_answers`. `deadline_s` bounds each start. When it is closed, and also when this process is killed,
    the server ends and its folder goes, with what is in shared memory under the folder's name. Ctrl-C in the terminal
    does not reach the server; the context manager stops it.
    """

    name: ClassVar[str]
    # What its log says where a port that was free is free no longer.
    taken: ClassVar[str] = "Address already in use"

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
        """What has to be there before it can run here, downloaded where it is missing."""

    @abstractmethod
    def _place(self) -> None:
        """Choose free ports and set `address`; again where one of them was taken meanwhile."""

    @abstractmethod
    def _prepare(self) -> None:
        """Fill the folder, once, after `_place`."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments."""

    def _variables(self) -> Mapping[str, str] | None:
        """Its environment; this process's own if None."""
        return None

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this very server answers at the address, and not another that took the port."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process, which leads a process group. Raises UserError where it does not run."""
        if self._process is None:
            raise UserError(f"this {self.name} is not running; start it first")
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time that it and the processes it started have used, in seconds (proc(5), Linux only)."""
        group = self.pid
        if not Path("/proc/self/stat").exists():
            raise UserError(f"the CPU time of {self.name} is read from /proc, which is not here")
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Download where needed, start, and wait until it answers.

        Raises UserError where it cannot run here, DependencyDown with the end of the log where it does not start.
        """
        if self._watcher is not None:
            raise UserError(f"this {self.name} is started already; use restart")
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
        """Start it again on the same ports and data, after `kill` or `stop`; where it runs it is stopped first."""
        if self._watcher is None:
            raise UserError(f"this {self.name} was never started, or is closed")
        self.stop()
        self._launch()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 20 s. Its folder stays until `close`."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and the processes that it started, as a machine that loses power."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._tell("")
            for left in SHARED_MEMORY.glob(f"{self.folder.name}*"):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop it and remove its folder. A second call does nothing."""
        self.stop()
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait()
            self._watcher = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that it wrote since it was last started, at most 8 kB of them."""
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
                self.kill()  # what it started may run still
                raise DependencyDown(f"{self.name} ended with code {code} as it started; its log:\n{self.log_tail()}")
            if time.monotonic() > end:
                self.kill()
                raise DependencyDown(f"{self.name} is silent after {self.deadline_s:g} s; its log:\n{self.log_tail()}")
            time.sleep(0.05)

    def _tell(self, pid: str) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(BrokenPipeError):  # somebody ended the watcher: the server is still ours to stop
                self._watcher.stdin.write(f"{pid}\n".encode())
                self._watcher.stdin.flush()


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Ports that are free now, below those that the system gives to clients.

    A client that connects again and again to a closed port of that range ends up connected to itself, and keeps the
    port.
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
    """Whether something listens at host:port: clients would log each refused connection."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def tail(text: str, lines: int = 20) -> str:
    """The last lines of what a process said, at most 8 kB of them."""
    return "\n".join(text[-8192:].splitlines()[-lines:])
