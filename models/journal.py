"""The log of a training run, metrics.jsonl: one JSON object per line, with the cost of the run so far.

An open log locks its folder: two runs into one folder would overwrite each other's checkpoints.
"""

import fcntl
import json
import logging
import os
import resource
import sys
import time
import weakref
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Final, Self

from tagbus.stream.errors import UserError

log = logging.getLogger(__name__)

# In the folder of the run, or next to its output.
JOURNAL: Final = "metrics.jsonl"
RATES: Final = ("cpu_seconds_per_1000_pairs", "cpu_seconds_per_1000_contents")


class _Held:
    """An open folder, locked as long as this lives."""

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor)


# By device and inode of the folder: several logs of one process share a lock.
_HELD: Final[weakref.WeakValueDictionary[tuple[int, int], _Held]] = weakref.WeakValueDictionary()


def _locked(folder: Path) -> _Held:
    """The folder's lock. Raises UserError if another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    found = os.fstat(descriptor)
    key = found.st_dev, found.st_ino
    if (held := _HELD.get(key)) is not None:
        os.close(descriptor)
        return held
    held = _HELD[key] = _Held(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        del _HELD[key]
        raise UserError(f"{folder}: another run writes into it; wait for its end, or name another folder") from None
    except OSError as error:
        # A file system without locks.
        log.debug("%s cannot be locked: %s", folder, error.strerror)
    return held


class Journal:
    """Appends to a file; a resumed run continues the same file."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if another process writes into the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._held = _locked(path.parent)
        self._path = path
        self._started = time.monotonic()
        self._cpu = time.process_time()
        self._always: Mapping[str, str] = {}

    def marked(self, **always: str) -> Self:
        """Return the same log, with these fields in every line."""
        other = copy(self)
        other._always = {**self._always, **always}
        return other

    def write(self, fields: Mapping[str, object], pairs: int = 0, contents: int = 0) -> None:
        """Write a line. `pairs` (of content and tag) or `contents`: trained on since the journal was opened."""
        cpu = time.process_time() - self._cpu
        line = {
            **self._always,
            **fields,
            "seconds": round(time.monotonic() - self._started, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_mb": round(peak_mb(), 1),
        }
        for name, count in (("pairs", pairs), ("contents", contents)):
            if count:
                line |= {name: count, f"cpu_seconds_per_1000_{name}": round(1000 * cpu / count, 3)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def lines(path: Path) -> list[dict[str, object]]:
    """Return the lines of a log, empty without a file. A truncated last line is skipped."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def cost(path: Path) -> dict[str, float]:
    """Return the cost of a training from its log: `cpu_seconds` over all resumptions, largest `peak_mb`, and last CPU
    seconds per 1,000 pairs or contents. Empty without a log."""
    log = lines(path)
    if not log:
        return {}
    clock = [_number(line, "cpu_seconds") for line in log]
    # The clock restarts at 0 when a run is resumed.
    ends = [now for now, after in zip(clock, [*clock[1:], 0.0], strict=True) if after < now]
    peak = max(_number(line, "peak_mb") for line in log)
    rates: dict[str, float] = {name: _number(log[-1], name) for name in RATES if name in log[-1]}
    return {"cpu_seconds": round(sum(ends), 1), **({"peak_mb": peak} if peak else {}), **rates}


def _number(line: Mapping[str, object], name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def peak_mb() -> float:
    """The peak resident memory of this process, in megabytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 1e6 if sys.platform == "darwin" else found / 1e3
