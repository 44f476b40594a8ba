"""Nothing calls home on a whole installation: services that work under strace, and every command that test_commands.py
has not run, write to the folders given and speak to the addresses configured."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest

from tagbus.stream.local.child import free_ports
from tests.conftest import Broker
from tests.outside.place import Place, children, run
from tests.outside.tracing import strace
from tests.support import get, wait_until
from tests.telemetry.commands import COMMANDS, ENDS, REFUSED
from tests.telemetry.stage import SECONDS, Stage, staged

pytestmark = pytest.mark.kafka
pytest.importorskip("qdrant_edge")

SERVICES = ("index", "feedback", "views", "run")
# Under strace with the packaged components, in test_commands.py.
THERE = {"config", "schema", "asyncapi", "validate", "tag", "calibrate", "evaluate", "publish"}


@dataclass(frozen=True)
class Traced:
    """A service under strace. `ports`: those that it serves on."""

    command: str
    place: Place
    process: "Popen[bytes]"
    ports: tuple[int, ...]

    def ready(self) -> bool:
        return self.process.poll() is not None or get(self.ports[0], "/readyz")[0] == 200

    def end(self) -> int:
        """Its exit code, after SIGTERM unless it ends by itself."""
        if self.command not in ENDS:
            for child in children(self.process.pid):
                os.kill(child, signal.SIGTERM)
        return self.process.wait(SECONDS)

    def close(self) -> None:
        for child in children(self.process.pid) if self.process.poll() is None else ():
            os.kill(child, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def stage(kafka: Broker, tmp_path: Path) -> Iterator[Stage]:
    strace()
    given = tmp_path / "given"
    given.mkdir()
    with staged(kafka.address, given) as made:
        yield made


def start(command: str, stage: Stage, folder: Path) -> Traced:
    folder.mkdir()
    ports = tuple(free_ports(2))
    place = Place(folder)
    settings = {**stage.variables, "HEALTH__PORT": str(ports[0]), "VIEWS__PORT": str(ports[1])}
    return Traced(command, place, place.start(["-m", "tagbus.stream.cli", command], **settings), ports)


def test_no_service_and_no_command_does(stage: Stage, tmp_path: Path) -> None:
    own = [stage.address, stage.variables["MEMORY__URL"].removeprefix("http://"), stage.told.url.split("/")[2]]
    services: list[Traced] = []
    try:
        for command in SERVICES:
            services.append(start(command, stage, tmp_path / command))
            wait_until(services[-1].ready, SECONDS, f"a ready {command}")
            assert services[-1].process.poll() is None, services[-1].place.told()
        (tmp_path / "commands").mkdir()
        place = Place(tmp_path / "commands")
        given = {**stage.files, "content": stage.variables["TOPICS__CONTENT"]}
        names = [name for name in COMMANDS if name not in THERE]
        commands = [[*name.split(), *(one.format(**given) for one in COMMANDS[name])] for name in names]
        health, views = free_ports(2)
        codes = run(place, *commands, **stage.variables, HEALTH__PORT=str(health), VIEWS__PORT=str(views))
        assert [code for code in codes.values() if not 0 <= code < 100] == []
        # Under strace the indexer may be behind for longer than `explain` waits for it.
        assert {name for name, code in codes.items() if code} <= REFUSED.keys() | {"explain"}, codes
        place.check([*own, f"127.0.0.1:{health}", f"127.0.0.1:{views}"], [tmp_path / "given"])
        for service in services:
            assert service.end() == ENDS.get(service.command, 0), service.place.told()
            service.place.check([*own, *(f"127.0.0.1:{port}" for port in service.ports)])
    finally:
        for service in services:
            service.close()
