"""A real tritonserver as a child process, on a loopback address: gRPC only, models loaded by name."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tagbus.stream.encoder.release import default_folder
from tagbus.stream.local.child import HOST, Child, free_ports, reachable
from tagbus.stream.local.environment import available, default_cache, install

__all__ = ["TritonServer", "available", "default_cache", "default_repository"]


def default_repository() -> Path:
    """The model repository shipped in the package."""
    return default_folder().parent.parent


class TritonServer(Child):
    """One server; a context manager that starts it and stops it.

    `repository`: a model repository (the package's own if None). `models`: loaded at startup; more are loaded through
    the client (the server is in explicit mode, so a folder that is not a model does no harm). `host`: a loopback
    address. `options`: added to the command. `cache`: the folder of its environment. `deadline_s` bounds each start:
    with the warm-up of `encoder` it takes 6 s on two idle cores. Its log is in a temporary folder that is removed with
    it.

    Entering raises UserError if it cannot run here, DependencyDown with the end of the log if it does not start.
    """

    name = "tritonserver"
    taken = "already in use"
    # On a busy machine a lock of the Python backend may time out, which aborts the server.
    unlucky = "boost::interprocess::lock_exception"

    def __init__(
        self,
        repository: Path | None = None,
        models: Sequence[str] = ("encoder",),
        host: str = HOST,
        options: Sequence[str] = (),
        cache: Path | None = None,
        deadline_s: float = 120.0,
    ) -> None:
        super().__init__(deadline_s)
        self._repository = repository or default_repository()
        self._models = tuple(models)
        self._host = host
        self._options = tuple(options)
        self._cache = cache or default_cache()

    def log_tail(self, lines: int = 20) -> str:
        """As for any child, without the server's tables."""
        said = super().log_tail(10 * lines).splitlines()
        return "\n".join([line for line in said if line and line[0] not in "+|"][-lines:])

    def _install(self) -> None:
        self._environment = install(self._cache)

    def _place(self) -> None:
        (port,) = free_ports(1, self._host)
        self.address = f"{self._host}:{port}"

    def _prepare(self) -> None:
        self._environment.backends(self.folder / "backends")

    def _variables(self) -> Mapping[str, str]:
        return self._environment.variables()

    def _command(self) -> list[str]:
        host, _, port = self.address.rpartition(":")
        return [
            str(self._environment.server),
            f"--model-repository={self._repository}",
            f"--backend-directory={self.folder / 'backends'}",
            f"--cache-directory={self._environment.caches}",
            # A killed server leaves its shared memory behind, 1 MB a process: the name identifies its owner.
            f"--backend-config=python,shm-region-prefix-name={self.folder.name}",
            # One at a time: six models loading together on two cores at a load of 11 hit a timeout of the backend's
            # lock, which aborts the server (boost::interprocess::lock_exception).
            "--model-load-thread-count=1",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._models),
            # By default it listens on all addresses.
            f"--grpc-address={host}",
            f"--grpc-port={port}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
            *self._options,
        ]

    def _answers(self) -> bool:
        """Whether its models are ready: in explicit mode the server reports ready without them."""
        if not reachable(self.address):
            return False
        if any(option.startswith("--grpc-use-ssl") for option in self._options):
            return True  # its port opens only once its models are loaded
        try:
            with InferenceServerClient(self.address) as client:
                return all(client.is_model_ready(model, client_timeout=2) for model in self._models)
        except InferenceServerException:
            return False


def servable(repository: Path) -> dict[str, Path]:
    """The models with a configuration and a model file in a repository, by name: the newest version folder of each.

    Left out are configurations whose model is yet to be trained, and folders without a configuration.
    """
    named = sorted(path.parent for path in repository.glob("*/config.pbtxt"))
    found = {place.name: [path.parent for path in place.glob("[0-9]*/*.onnx")] for place in named}
    return {name: max(folders, key=lambda folder: int(folder.name)) for name, folders in found.items() if folders}


def main() -> None:
    """Run a server for development, until Ctrl-C. It serves the models of the package's repository and prints the
    settings that use them; a model other than the encoder is named after its component."""
    models = servable(default_repository())
    with TritonServer(models=tuple(models)) as server, suppress(KeyboardInterrupt):
        sys.stdout.write(f"TAGBUS_ENCODER__KIND=triton TAGBUS_ENCODER__ADDRESS={server.address}\n")
        for name, folder in models.items():
            if folder != default_folder():
                section = f"TAGBUS_COMPONENTS__{name.upper()}"
                sys.stdout.write(f"{section}__KIND=triton {section}__FOLDER={folder}\n")
        sys.stdout.flush()
        while True:
            time.sleep(1)  # not signal.pause: it would miss a Ctrl-C that comes just before it, and wait forever


if __name__ == "__main__":
    main()
