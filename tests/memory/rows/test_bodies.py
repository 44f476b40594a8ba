"""Payloads in a file: a list of bytes, of which nothing is left in the file once it is replaced or removed."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.errors import DependencyDown
from tagbus.stream.memory.rows import bodies
from tagbus.stream.memory.rows.bodies import BodyFile

STEPS = st.lists(st.tuples(st.sampled_from(["append", "set", "pop"]), st.binary(max_size=40), st.integers(0, 9)))


def test_it_is_a_list_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files so small that they are rewritten over and over."""
    monkeypatch.setattr(bodies, "SMALL", 10)

    @settings(max_examples=60)
    @given(steps=STEPS)
    def check(steps: list[tuple[str, bytes, int]]) -> None:
        file, right = BodyFile(tmp_path), list[bytes]()
        for step, body, number in steps:
            if step == "append" or not right:
                file.append(body)
                right.append(body)
            elif step == "set":
                file[number % len(right)] = right[number % len(right)] = body
            else:
                assert file.pop() == right.pop()
            assert [file[row] for row in range(len(file))] == right

    check()


def test_what_is_replaced_or_removed_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a text that a longer one, a shorter one and nothing replace, then the file does not hold it."""
    made: list[int] = []
    unnamed = bodies.unnamed

    def kept(folder: Path) -> object:
        file = unnamed(folder)
        made.append(os.dup(file.fileno()))
        return file

    monkeypatch.setattr(bodies, "unnamed", kept)
    file = BodyFile(tmp_path)
    for name in ("one", "two", "three"):
        file.append(f"withdrawn {name}".encode())
    file[0] = b"something that is longer"
    file[1] = b"short"
    file.pop()
    content = os.pread(made[0], 1_000, 0)
    os.close(made[0])
    assert b"withdrawn" not in content
    assert b"short" in content
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_a_dependency_that_is_down() -> None:
    with pytest.raises(DependencyDown, match=r"the store's files in /proc"):
        BodyFile(Path("/proc"))
