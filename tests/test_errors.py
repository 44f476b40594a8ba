"""What errors say, by their class."""

import subprocess
import sys

# In a separate process: its threads and open files are its own.
_USED_UP = """
import os, resource
from tagbus.stream.errors import DependencyDown, Overloaded
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
held = []
while len(held) < 40:
    print(DependencyDown("no broker answered"))
    try:
        held += [os.open(os.curdir, os.O_RDONLY)]
    except OSError:
        break
print(Overloaded("the store answers too slowly"))
os.close(held.pop())
print(DependencyDown("no broker answered"))
"""


def test_a_dependency_that_seems_down_for_lack_of_file_descriptors_is_not_blamed_alone() -> None:
    # When a process opens files until its limit of 40 is reached
    ran = subprocess.run([sys.executable, "-c", _USED_UP], capture_output=True, text=True, timeout=120, check=True)
    # Then its messages name the limit while it has none left, and only then
    *before, last, overloaded, after = ran.stdout.splitlines()
    reason = " (this process has used up its 40 file descriptors: raise the limit, ulimit -n)"
    assert before
    assert set(before) == {"no broker answered"}
    assert last == "no broker answered" + reason
    assert overloaded == "the store answers too slowly" + reason
    assert after == "no broker answered"
