"""Input files: each is read once, pipes included, or refused."""

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagbus.stream.app.places import files
from tagbus.stream.contract.codec import VALUE_BYTES
from tagbus.stream.errors import UserError
from tests.support import fifo

LINES = b'{"id": "a"}\n\n{"id": "b"}\n'
PLACES = [(1, b'{"id": "a"}'), (3, b'{"id": "b"}')]
STDIN = Path("-")


def numbered(lines: Iterator[files.Line]) -> list[tuple[int, bytes]]:
    return [(line.number, line.value) for line in lines]


@pytest.fixture
def regular(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_bytes(LINES)
    return path


def stdin(patch: pytest.MonkeyPatch, stream: io.BufferedIOBase) -> None:
    patch.setattr(sys, "stdin", io.TextIOWrapper(stream, encoding="utf-8"))  # type: ignore[type-var]


class TestRereadable:
    def test_each_call_yields_all_lines(self, regular: Path) -> None:
        with files.rereadable(regular) as lines:
            for _ in range(3):
                assert numbered(lines()) == PLACES

    def test_a_pipe_is_read_once(self, tmp_path: Path) -> None:
        with fifo(tmp_path / "pipe", LINES) as path, files.rereadable(path) as lines:
            for _ in range(2):
                assert numbered(lines()) == PLACES
            assert [line.place for line in lines()] == [f"{path}:1", f"{path}:3"]

    def test_standard_input_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stdin(monkeypatch, io.BytesIO(LINES))
        with files.rereadable(STDIN) as lines:
            for _ in range(2):
                assert numbered(lines()) == PLACES

    def test_standard_input_that_is_a_file_begins_where_it_stands(
        self, regular: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with regular.open("rb") as opened:
            opened.readline()
            stdin(monkeypatch, opened)
            with files.rereadable(STDIN) as lines:
                for _ in range(2):
                    assert [line.value for line in lines()] == [b'{"id": "b"}']

    def test_a_copy_that_cannot_be_written_names_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = io.FileIO("/dev/full", "r+")
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        stdin(monkeypatch, io.BytesIO(LINES))
        with pytest.raises(UserError, match=r"^standard input cannot be copied to the temporary folder: No space left"):
            files.rereadable(STDIN).__enter__()

    def test_a_long_line_is_cut(self, tmp_path: Path) -> None:
        path = tmp_path / "long"
        path.write_bytes(b"x" * (3 * VALUE_BYTES) + b"\nnext\n")
        with files.rereadable(path) as lines:
            assert [(line.number, len(line.value)) for line in lines()] == [(1, VALUE_BYTES + 1), (2, 4)]


class TestDistinct:
    def test_a_pipe_may_not_be_named_twice(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(
            UserError, match=rf"^{re.escape(str(pipe))} is the input .* again, which can be read only once$"
        ):
            files.require_distinct(pipe, None, pipe)

    def test_standard_input_may_not_be_named_twice(self) -> None:
        with pytest.raises(UserError, match=r"^standard input is the input standard input again"):
            files.require_distinct(STDIN, STDIN)

    def test_a_file_may(self, regular: Path, tmp_path: Path) -> None:
        files.require_distinct(regular, regular, tmp_path / "missing", tmp_path / "missing", STDIN)

    def test_what_is_read_several_times_must_be_regular(self, regular: Path, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(
            UserError, match=rf"^{re.escape(str(pipe))} is read more than once, expected a regular file$"
        ):
            files.require_regular(pipe)
        files.require_regular(regular)
        files.require_regular(tmp_path / "missing")


def test_a_temporary_folder_that_is_full_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: both are refused by the write."""
    script = (
        "import sys; from pathlib import Path; from tagbus.stream.app.places import files\n"
        "try: files.rereadable(Path('-')).__enter__()\n"
        "except files.UserError as error: print(error)"
    )
    done = subprocess.run(
        ["sh", "-c", f'ulimit -f 8; exec "{sys.executable}" -c "$0"', script],
        input=b"x" * 100_000,
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = b"standard input cannot be copied to the temporary folder: File too large; TMPDIR names another\n"
    assert (done.stdout, done.stderr) == (said, b"")
