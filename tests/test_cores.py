"""Cores that a process may use: those that it may run on, within the CPU limit of its container."""

import os
from pathlib import Path

import pytest

from tagbus.stream.cores import cores

ALL = 8


@pytest.fixture(autouse=True)
def _eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ALL)), raising=False)


def limited(tmp_path: Path, groups: str, **files: str) -> int:
    """The result with these groups of the process and these files, `__` in their names for `/`."""
    (tmp_path / "groups").write_text(groups, "ascii")
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "ascii")
    return cores(tmp_path / "groups", tmp_path / "fs")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", ALL),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 100000\n", ALL),
        ("", ALL),
        ("nonsense\n", ALL),
        ("0 0\n", ALL),
    ],
)
def test_a_limit_of_version_2_counts(tmp_path: Path, limit: str, expected: int) -> None:
    assert limited(tmp_path, "0::/\n", fs__cpu_max=limit) == expected


def test_the_least_limit_of_a_group_and_its_parents_counts(tmp_path: Path) -> None:
    given = {"fs__pods__cpu_max": "300000 100000", "fs__pods__one__cpu_max": "400000 100000"}
    assert limited(tmp_path, "0::/pods/one\n", **given) == 3


def test_a_path_of_the_host_does_not_hide_the_limit_that_is_mounted(tmp_path: Path) -> None:
    assert limited(tmp_path, "0::/kubepods/pod1/abc\n", fs__cpu_max="200000 100000") == 2


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "expected"), [("-1\n", ALL), ("400000\n", 4), ("10000\n", 1)])
def test_a_limit_of_version_1_counts(tmp_path: Path, folder: str, quota: str, expected: int) -> None:
    given = {f"fs__{folder}__one__cpu_cfs_quota_us": quota, f"fs__{folder}__one__cpu_cfs_period_us": "100000\n"}
    assert limited(tmp_path, "4:memory:/one\n3:cpu,cpuacct:/one\n0::/\n", **given) == expected


@pytest.mark.parametrize("groups", ["", "nonsense", "0::", "::::", "1:name=systemd:/\n"])
def test_without_a_group_all_cores_count(tmp_path: Path, groups: str) -> None:
    assert limited(tmp_path, groups) == ALL


def test_without_groups_all_cores_count(tmp_path: Path) -> None:
    assert cores(tmp_path / "nowhere", tmp_path) == ALL


def test_cores_that_the_process_may_not_run_on_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert limited(tmp_path, "0::/\n", fs__cpu_max="200000 100000") == 1
