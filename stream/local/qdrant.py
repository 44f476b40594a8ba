"""A shared memory on this machine, for the demo and the tests: Qdrant's engine behind Qdrant's API, in a separate
process. Production uses the Qdrant server itself, whose binary no package registry has."""

import importlib.util
import sys
from pathlib import Path

from tagbus.stream.errors import UserError
from tagbus.stream.local.child import HOST, Child, free_ports, reachable


class QdrantServer(Child):
    """The server; a context manager. `url`: the value for TAGBUS_MEMORY__URL. Written data survives `kill` and
    `restart`."""

    name = "Qdrant engine"

    def __init__(self, deadline_s: float = 120.0) -> None:
        super().__init__(deadline_s)
        self._port = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.address}"

    def _install(self) -> None:
        if importlib.util.find_spec("qdrant_edge") is None:
            raise UserError("a shared memory on this machine needs qdrant-edge: pip install 'tagbus[embedded]'")

    def _place(self) -> None:
        (self._port,) = free_ports(1)
        self.address = f"{HOST}:{self._port}"

    def _prepare(self) -> None:
        self._data.mkdir()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tagbus.stream.local.qdrant_api", str(self._data), str(self._port)]

    def _answers(self) -> bool:
        return reachable(self.address)
