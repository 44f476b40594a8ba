"""Files that are not JSON lines: a one-line error names their format and the command that converts them."""

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.harness import Cli, process

EVENTS = [{"id": "a", "title": "Bees"}, {"id": "b", "title": "Honey"}]
LINES = "".join(json.dumps(event) + "\n" for event in EVENTS)
FORMS: dict[str, tuple[bytes, str, str]] = {
    "gzip": (gzip.compress(LINES.encode()), "is compressed by gzip", "gzip -dc {}"),
    "bzip2": (bz2.compress(LINES.encode()), "is compressed by bzip2", "bzip2 -dc {}"),
    "xz": (lzma.compress(LINES.encode()), "is compressed by xz", "xz -dc {}"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x00", "is compressed by zstd", "zstd -dc {}"),
    "parquet": (b"PAR1\x15\x04", "is a Parquet file", "export it first"),
    "avro": (b"Obj\x01\x04", "is an Avro file", "export it first"),
    "UTF-16": (LINES.encode("utf-16"), "is in UTF-16", "iconv -f UTF-16 -t UTF-8 {}"),
    "UTF-16 big-endian": (b"\xfe\xff" + LINES.encode("utf-16-be"), "is in UTF-16", "iconv -f UTF-16 -t UTF-8 {}"),
    "list": (json.dumps(EVENTS).encode(), "is one JSON list", "jq -c '.[]' {}"),
    "list over lines": (json.dumps(EVENTS, indent=2).encode(), "is one JSON list", "jq -c '.[]' {}"),
    "object over lines": (
        json.dumps(EVENTS[0], indent=2).encode(),
        "has its JSON over several lines",
        "jq -c . {}",
    ),
}


@pytest.mark.parametrize(("value", "form", "advice"), FORMS.values(), ids=FORMS)
def test_it_is_named(tagbus: Cli, tmp_path: Path, value: bytes, form: str, advice: str) -> None:
    path = tmp_path / "content"
    path.write_bytes(value)
    for arguments in (("validate", path), ("tag", path, "--tags", path)):
        answer = tagbus(*arguments)
        assert answer.code == 2
        expected = f"tagbus: {path} {form}, expected JSON lines in UTF-8, one object a line: "
        assert answer.one_line().startswith(expected)
        assert advice.format(path) in answer.one_line()


def test_it_is_named_from_a_pipe(tagbus: Cli) -> None:
    answer = process("validate", "-", stdin=FORMS["gzip"][0])
    assert answer.code == 2
    assert answer.one_line().startswith("tagbus: standard input is compressed by gzip, expected JSON lines")


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz", "UTF-16"])
def test_what_is_advised_gives_the_lines(tmp_path: Path, form: str) -> None:
    value, _, advice = FORMS[form]
    if shutil.which(advice.split()[0]) is None:
        pytest.skip(f"no {advice.split()[0]} here")
    path = tmp_path / "content"
    path.write_bytes(value)
    assert subprocess.run(advice.format(path).split(), capture_output=True, check=True).stdout == LINES.encode()


@pytest.mark.parametrize("make", [str.encode, lambda text: text.replace("\n", "\r\n").encode()], ids=["LF", "CRLF"])
def test_lines_are_lines_whatever_ends_them(tagbus: Cli, tmp_path: Path, make: Callable[[str], bytes]) -> None:
    path = tmp_path / "content.jsonl"
    path.write_bytes(make(LINES))
    assert tagbus("validate", path).err == "2 right, 0 wrong\n"


def test_an_archive_is_named(tagbus: Cli, tmp_path: Path) -> None:
    path = tmp_path / "content.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("content.jsonl", LINES)
    assert f"{path} is a ZIP archive" in tagbus("validate", path).one_line()
