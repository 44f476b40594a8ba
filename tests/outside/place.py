"""Where a traced command runs: a home, a temporary folder and a working directory of its own, and what must hold."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cli.harness import environment
from tests.outside.tracing import read, traced

COMMANDS = Path(__file__).with_name("commands.py")
SECONDS = 240
# Devices, the locks of multiprocessing, which have a name of their own for a moment, and names that RocksDB gives its
# threads.
DEVICES = (Path("/dev/null"), Path("/dev/tty"), Path("/dev/shm"), Path("/proc/self/task"))


@dataclass(frozen=True)
class Place:
    """A home, a temporary folder and a working directory, empty at first."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    def start(self, command: Sequence[str], **settings: str) -> "subprocess.Popen[bytes]":
        for one in (self.home, self.work, self.temporary):
            one.mkdir()
        own = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1"}
        # Where a library would rather write, or is told to be silent by whoever runs the tests.
        dropped = ("XDG_", "HF_", "ORT_", "MPL", "TORCH")
        clean = {name: value for name, value in environment(settings).items() if not name.startswith(dropped)}
        return traced([sys.executable, *command], self.folder / "trace", clean | own, self.work)

    def told(self) -> str:
        return (self.work / "err").read_text()[-2000:]

    def check(self, allowed: Sequence[str] = (), given: Sequence[Path] = ()) -> None:
        """Nothing was written outside of its own folders and those `given`, and no address ip:port was asked but the
        first, and perhaps the others."""
        trace = read(self.folder / "trace", self.work)
        elsewhere = trace.outside([self.work, self.temporary, *given, *DEVICES])
        assert not elsewhere, f"written outside the folders given: {elsewhere}"
        # urllib3 binds a port of its own when it is imported, to see whether there is IPv6.
        asked = trace.addresses - {"::1:0"}
        assert asked >= set(allowed[:1]), f"asked: {sorted(asked)}, expected {allowed[0]} among them"
        assert asked <= set(allowed), f"asked: {sorted(asked)}, expected none but {allowed}"


def run(place: Place, *commands: Sequence[str | Path], **settings: str) -> dict[str, int]:
    """The exit code of each command, by its words before the first file or option."""
    given = [[str(argument) for argument in command] for command in commands]
    process = place.start([str(COMMANDS), json.dumps(given)], **settings)
    process.wait(SECONDS)
    assert process.returncode == 0, place.told()
    codes: dict[str, int] = json.loads((place.work / "out").read_text().splitlines()[-1])
    return codes


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
