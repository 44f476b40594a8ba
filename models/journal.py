"""The log of a training run: a JSON object a line, with what the run has cost so far."""

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# In the folder of the run.
JOURNAL: Final = "metrics.jsonl"


class Journal:
    """Appends to a file; a resumed run goes on in the same one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._started = time.monotonic()
        self._cpu = time.process_time()

    def write(self, fields: Mapping[str, str | float], pairs: int = 0) -> None:
        """One line. `pairs`: (content, tag) pairs trained on since the journal was opened."""
        cpu = time.process_time() - self._cpu
        line = {
            **fields,
            "seconds": round(time.monotonic() - self._started, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_mb": round(peak_mb(), 1),
            **({"pairs": pairs, "cpu_seconds_per_1000_pairs": round(1000 * cpu / pairs, 3)} if pairs else {}),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def peak_mb() -> float:
    """The most memory that this process has held, in megabytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 1e6 if sys.platform == "darwin" else found / 1e3
