"""What a training step frees stays with the process until the training ends."""

import platform
import subprocess
import sys

import pytest

# Prints by how many MB a freed array leaves the process larger than it was: without more ado, while memory is kept, and
# afterwards.
MEASURE = """
import numpy as np
from pathlib import Path
from tagbus.models.train.allocator import freed_memory_kept

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def left():
    large = np.ones(25_000_000)
    del large
    return round((resident() - before) / 1e6)

np.ones(1 << 16).sum()
before = resident()
print(left())
with freed_memory_kept():
    print(left())
print(round((resident() - before) / 1e6), left())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_freed_memory_is_kept_for_the_next_step_and_returned_at_the_end() -> None:
    """Of 200 MB."""
    found = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True)
    plain, kept, returned, again = map(int, found.stdout.split())
    assert kept > 150
    assert max(plain, returned, again) < 50
