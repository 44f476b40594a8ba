"""The log of a training run: a JSON object a line, with what the run has cost so far."""

import json
import resource
import sys
import time
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Final, Self

# In the folder of the run, or beside what it made.
JOURNAL: Final = "metrics.jsonl"
RATES: Final = ("cpu_seconds_per_1000_pairs", "cpu_seconds_per_1000_contents")


class Journal:
    """Appends to a file; a resumed run goes on in the same one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._started = time.monotonic()
        self._cpu = time.process_time()
        self._always: Mapping[str, str] = {}

    def marked(self, **always: str) -> Self:
        """The same log; what is written by this one has these fields in every line."""
        other = copy(self)
        other._always = {**self._always, **always}
        return other

    def write(self, fields: Mapping[str, object], pairs: int = 0, contents: int = 0) -> None:
        """One line. `pairs` of content and tag, or contents: how many were trained on since the journal was opened."""
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
    """What was written; nothing where there is no file. A last line that was cut off is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def cost(path: Path) -> dict[str, float]:
    """What training took by its log: `cpu_seconds` of all stretches, the largest `peak_mb`, and the CPU seconds per
    1,000 pairs or contents that were told last. Empty where there is no log."""
    told = lines(path)
    if not told:
        return {}
    clock = [_number(line, "cpu_seconds") for line in told]
    # It starts anew where a run that was cut off goes on.
    ends = [now for now, after in zip(clock, [*clock[1:], 0.0], strict=True) if after < now]
    peak = max(_number(line, "peak_mb") for line in told)
    rates: dict[str, float] = {name: _number(told[-1], name) for name in RATES if name in told[-1]}
    return {"cpu_seconds": round(sum(ends), 1), **({"peak_mb": peak} if peak else {}), **rates}


def _number(line: Mapping[str, object], name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def peak_mb() -> float:
    """The most memory that this process has held, in megabytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 1e6 if sys.platform == "darwin" else found / 1e3
