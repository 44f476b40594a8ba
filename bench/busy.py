"""Repeats the tests against real servers on a busy machine, beside processes that use all of the CPU.

    python bench/busy.py [--times 20] [--hogs 8] [--out FILE] [--logs FOLDER] [TESTS ...]

Runs tests/kafka, tests/triton, tests/local and tests/bus, or the named tests, as `make test` does, in two processes,
with `stress-ng --cpu 8` beside them or, without stress-ng, as many endless loops. A test that depends on speed fails
here. The log of a failed run is kept in the folder of logs, by default .cache/busy, and the log of the current run can
be followed there. Exits with code 1 if any run failed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDERS = ("tests/kafka", "tests/triton", "tests/local", "tests/bus")
LOOP = "while True: pass"
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the tests. `summary`: pytest's last line."""

    code: int
    seconds: float
    summary: str
    failed: tuple[str, ...]
    log: str | None


def hogs(count: int) -> list[list[str]]:
    """Return commands that keep `count` cores busy."""
    if shutil.which("stress-ng"):
        return [["stress-ng", "--cpu", str(count), "--quiet"]]
    return [[sys.executable, "-c", LOOP]] * count


@contextmanager
def busy(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Run these processes meanwhile; end each with its children afterwards."""
    running = [subprocess.Popen(command, start_new_session=True) for command in commands]
    try:
        yield
        ended = [process.args for process in running if process.poll() is not None]
        assert not ended, f"{ended} ended by themselves: the machine was not busy"
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def tests(number: int, folders: Sequence[str], logs: Path) -> Run:
    """Run the tests once."""
    log = logs / f"{number:02d}.log"
    pytest = str(Path(sys.executable).with_name("pytest"))
    command = [pytest, "-n", "2", "--dist", "loadfile", "-ra", "-p", "no:cacheprovider", *folders]
    start = time.monotonic()
    with log.open("wb") as out:
        code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=out, check=False).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        log.unlink()
    return Run(
        code,
        round(time.monotonic() - start, 1),
        (text.splitlines() or [""])[-1].strip("= "),
        tuple(dict.fromkeys(FAILED.findall(text))),
        str(log) if code else None,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="TESTS", nargs="*", default=list(FOLDERS))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--hogs", type=int, default=8, help="how many cores are wanted by others")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "busy.json")
    parser.add_argument("--logs", type=Path, default=ROOT / ".cache" / "busy")
    given = parser.parse_args()
    given.logs.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    commands = hogs(given.hogs)
    for number in range(1, given.times + 1):
        with busy(commands):
            runs.append(tests(number, given.folders, given.logs))
        print(f"{number:2d}  {runs[-1].summary}", *runs[-1].failed, sep="\n    ", flush=True)
    failed = [run for run in runs if run.code]
    report = {
        "runs": len(runs),
        "failed": len(failed),
        "beside": " ".join(commands[0]) if len(commands) == 1 else f"{len(commands)} endless loops",
        "cores": os.cpu_count(),
        "tests": given.folders,
        "rows": [asdict(run) for run in runs],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{len(failed)} of {len(runs)} runs failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
