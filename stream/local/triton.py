"""A real tritonserver as a child process, on a loopback address: gRPC only, models loaded by name."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tagbus.stream.encoder.release import default_folder
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.environment import available, default_cache, install
from tagbus.stream.local.jars import tail

__all__ = ["TritonServer", "available", "default_cache", "default_repository"]

_STOP_S = 20.0

# Ends the server, the processes of its models, and its folder when this process is gone, however it went: then the pipe
# closes, and read returns. It is told the pid on a line, and an empty line where there is none.
_WATCHER = """
pid=
while read -r line; do pid=$line; done
tries=0
if [ -n "$pid" ]; then
  kill -KILL "-$pid"
  while kill -0 "-$pid" 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
rm -rf -- "$1"
"""


def default_repository() -> Path:
    """The model repository that travels in the package."""
    return default_folder().parent.parent


class TritonServer:
    """One server; a context manager that starts it and stops it.

    `repository` is a model repository (the package's own if None), `models` are loaded at the start; more are loaded
    through the client (the server is in explicit mode, so a folder that is no model disturbs nobody). `host` is a
    loopback address, `options` are added to the command, `cache` is the folder of its environment. `deadline_s` bounds
    each start: with the warm-up of `encoder` it takes 6 s on two idle cores. Its log is in a temporary folder. When it
    is closed, and also when this process is killed, the server ends and the folder goes.

    Entering raises UserError where it cannot run here, DependencyDown with the end of the log where it does not start.
    """

    def __init__(
        self,
        repository: Path | None = None,
        models: Sequence[str] = ("encoder",),
        host: str = "127.0.0.1",
        options: Sequence[str] = (),
        cache: Path | None = None,
        deadline_s: float = 120.0,
    ) -> None:
        self._repository = repository or default_repository()
        self._models = tuple(models)
        self._host = host
        self._options = tuple(options)
        self._cache = cache or default_cache()
        self.deadline_s = deadline_s
        self.folder = Path()
        self.address = ""
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The server's process. Raises UserError where it does not run."""
        if self._process is None:
            raise UserError("this tritonserver is not running; start it first")
        return self._process.pid

    def model_pids(self, model: str) -> list[int]:
        """The processes behind a model, one for each instance (Linux only)."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.pid and any(word.startswith(f"{model}_".encode()) for word in words):
                    found.append(int(folder.name))
        return sorted(found)

    def cpu_seconds(self) -> float:
        """User and system time that the server and the processes of its models have used, in seconds (Linux only)."""
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid:  # of its process group
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Install where needed, start, and wait until its models are ready."""
        if self._watcher is not None:
            raise UserError("this tritonserver is started already; use restart")
        self._environment = install(self._cache)
        self.folder = Path(tempfile.mkdtemp(prefix="tagbus-triton-"))
        try:
            self._watcher = subprocess.Popen(
                ["sh", "-c", _WATCHER, "sh", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
            )
            self._environment.backends(self.folder / "backends")
            self.address = f"{self._host}:{_free_port(self._host)}"
            self._launch()
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Start it again on the same port, after `kill` or `stop`; where it runs it is stopped first."""
        if self._watcher is None:
            raise UserError("this tritonserver was never started, or is closed")
        self.stop()
        self._launch()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 20 s."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the server and the processes of its models, as a machine that loses power."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._tell("")

    def close(self) -> None:
        """Stop it and remove its folder. A second call does nothing."""
        self.stop()
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait()
            self._watcher = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the server wrote since it was last started, at most 8 kB of them, without its tables."""
        try:
            text = (self.folder / "triton.log").read_bytes()[self._log_start :]
        except OSError:
            return ""
        said = (line for line in text.decode(errors="replace").splitlines() if line and line[0] not in "+|")
        return tail("\n".join(said), lines)

    def _launch(self) -> None:
        with (self.folder / "triton.log").open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command(),
                env=self._environment.variables(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._tell(str(self._process.pid))
        end = time.monotonic() + self.deadline_s
        while not self._ready():
            code = self._process.poll()
            if code is not None:
                said = self.log_tail()
                self.kill()
                raise DependencyDown(f"tritonserver ended with code {code} as it started; its log:\n{said}")
            if time.monotonic() > end:
                said = self.log_tail()
                self.kill()
                raise DependencyDown(f"tritonserver is not ready after {self.deadline_s:g} s; its log:\n{said}")
            time.sleep(0.05)

    def _command(self) -> list[str]:
        host, _, port = self.address.rpartition(":")
        return [
            str(self._environment.server),
            f"--model-repository={self._repository}",
            f"--backend-directory={self.folder / 'backends'}",
            f"--cache-directory={self._environment.caches}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._models),
            # It listens on all addresses unless it is told otherwise.
            f"--grpc-address={host}",
            f"--grpc-port={port}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
            *self._options,
        ]

    def _ready(self) -> bool:
        """Whether the models are: in explicit mode the server calls itself ready without them."""
        host, _, port = self.address.rpartition(":")
        try:
            # The client would log each refused connection.
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        if any(option.startswith("--grpc-use-ssl") for option in self._options):
            return True  # its port opens when its models are loaded
        try:
            with InferenceServerClient(self.address) as client:
                return all(client.is_model_ready(model, client_timeout=2) for model in self._models)
        except InferenceServerException:
            return False

    def _tell(self, pid: str) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(BrokenPipeError):  # somebody ended the watcher: the server is still ours to stop
                self._watcher.stdin.write(f"{pid}\n".encode())
                self._watcher.stdin.flush()


def _free_port(host: str) -> int:
    """A port that is free now, below those that the system gives to clients."""
    while True:
        port = random.randint(20_000, 32_000)  # noqa: S311 no secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((host, port))
                return port
