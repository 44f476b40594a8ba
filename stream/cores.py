"""The number of cores this process may use, including the limits of its container, and its control groups.

A limit of CPU time (`docker --cpus`, a limit of Kubernetes) hides no core: with a thread for each core of the host, the
threads use up a period's time in one burst, and are all throttled for the rest of it.

Sources: Linux, control group v2, `cpu.max`; control group v1, `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

GROUPS: Final = Path("/proc/self/cgroup")
MOUNTED: Final = Path("/sys/fs/cgroup")


def cores(groups: Path = GROUPS, mounted: Path = MOUNTED) -> int:
    """The number of cores, at least 1. `groups` names the control groups of this process, `mounted` is their root."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Half a core counts as one thread, and a core and a half as two: a thread waits at times.
    return max(1, min([there, *(math.ceil(limit) for limit in _limits(groups, mounted))]))


def control_groups(controller: str, groups: Path = GROUPS, mounted: Path = MOUNTED) -> Iterator[tuple[int, Path]]:
    """The folders of the groups that this process is in, with the version, 1 or 2. A group's parents limit it too."""
    for line in _text(groups).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # In a container the path may be the host's, while its own group is mounted.
        parts = PurePosixPath("/" + path.strip("/")).parents
        folders = [*(parent.relative_to("/") for parent in parts), PurePosixPath(path.strip("/"))]
        for folder in folders:
            if number == "0":
                yield 2, mounted / folder
            elif controller in controllers.split(","):
                group = mounted / controllers / folder
                yield 1, group if group.is_dir() else mounted / controller / folder


def _limits(groups: Path, mounted: Path) -> Iterator[float]:
    """The limits of each group of this process, in cores."""
    for version, group in control_groups("cpu", groups, mounted):
        if version == 2:
            quota, _, period = _text(group / "cpu.max").partition(" ")
            yield from _ratio(quota, period)
        else:
            yield from _ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> Iterator[float]:
    """`max` and -1 mean no limit."""
    quota, period = quota.strip(), period.strip()
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
