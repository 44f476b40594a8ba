"""What a training step frees stays with the process."""

import platform
import subprocess
import sys

import pytest

# Prints by how many MB a freed array leaves the process larger than it was.
MEASURE = """
import numpy as np
from pathlib import Path
from tagbus.models.train.allocator import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

{call}
np.ones(1 << 16).sum()
before = resident()
large = np.ones(25_000_000)
del large
print(round((resident() - before) / 1e6))
"""


def left(call: str) -> int:
    """MB of 200."""
    found = subprocess.run([sys.executable, "-c", MEASURE.format(call=call)], check=True, capture_output=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    assert left("pass") < 50
    assert left("keep_freed_memory()") > 150
