"""The standard streams of the command: closed, full, in another locale; and Ctrl-C before there is a command."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.harness import Answer, environment, process

COMMAND = (sys.executable, "-m", "tagbus.stream.cli")
TAG = {"id": "t1", "name": "bees"}
# Names that ASCII and ISO-8859-1 have not, or have as other bytes.
CONTENT = {"id": "é-ł-蜂", "title": "Bees in the city"}
LOCALES: dict[str, Mapping[str, str]] = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "iso-8859-1": {"PYTHONIOENCODING": "iso-8859-1:strict", "PYTHONUTF8": "0"},
}


def redirected(redirection: str, *arguments: str | Path) -> Answer:
    """The command with a redirection of the shell."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *map(str, arguments)],
        env=environment({}),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def tags(tmp_path: Path) -> Path:
    """A taxonomy of one tag."""
    return written(tmp_path / "tags.jsonl", TAG)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """One content."""
    return written(tmp_path / "content.jsonl", CONTENT)


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


class TestOutput:
    @pytest.mark.parametrize("arguments", [["schema", "content"], ["config"], ["--help"], ["release", "--help"], []])
    def test_that_is_full_is_one_line_and_code_2(self, arguments: list[str]) -> None:
        answer = redirected(">/dev/full", *arguments)
        assert answer.code == 2
        assert answer.one_line() == "tagbus: standard output cannot be written: No space left on device"

    def test_that_is_full_ends_tag_as_well(self, content: Path, tags: Path) -> None:
        answer = redirected(">/dev/full", "tag", content, "--tags", tags)
        assert answer.code == 2
        assert answer.one_line() == "tagbus: standard output cannot be written: No space left on device"

    def test_that_is_closed_is_one_line_and_code_2(self) -> None:
        answer = redirected(">&-", "schema", "content")
        assert answer.code == 2
        assert answer.one_line() == "tagbus: standard output cannot be written: it is closed"

    def test_that_is_closed_is_not_missed_by_a_command_that_has_none(self, content: Path) -> None:
        answer = redirected(">&-", "validate", content)
        assert (answer.code, answer.err) == (0, "1 right, 0 wrong\n")

    def test_that_is_full_hides_no_other_error(self) -> None:
        full = redirected(">/dev/full", "validate", "/nowhere")
        assert (full.code, full.one_line()) == (2, "tagbus: /nowhere cannot be read: No such file or directory")

    def test_a_limit_on_files_is_one_line_and_code_2(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        done = subprocess.run(
            ["sh", "-c", 'ulimit -f 0; exec "$@" > "$0"', str(out), *COMMAND, "schema", "content"],
            env=environment({}),
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.decode() == "tagbus: standard output cannot be written: File too large\n"


class TestMessages:
    @pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">&- 2>&- <&-"])
    def test_that_cannot_be_written_change_no_code(self, redirection: str) -> None:
        answer = redirected(redirection, "nope")
        assert (answer.code, answer.out, answer.err) == (2, "", "")


class TestInput:
    def test_that_is_closed_is_one_line_and_code_2(self, tags: Path) -> None:
        for arguments in (["validate", "-"], ["tag", "-", "--tags", str(tags)]):
            answer = redirected("<&-", *arguments)
            assert answer.code == 2
            assert answer.err.splitlines()[-1] == "tagbus: standard input cannot be read: it is closed"
            assert "Traceback" not in answer.err

    def test_that_is_closed_is_not_an_empty_file(self) -> None:
        answer = redirected("<&-", "validate", "/dev/stdin")
        assert answer.code == 2
        assert answer.one_line() == "tagbus: /dev/stdin cannot be read: No such device or address"


@pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES)
class TestLocale:
    def test_results_are_utf_8(self, content: Path, tags: Path, locale: Mapping[str, str]) -> None:
        tagged = process("tag", content, "--tags", tags, variables=locale)
        assert tagged.code == 0
        (result,) = tagged.lines
        assert json.loads(result)["id"] == CONTENT["id"]

    def test_findings_and_messages_are_utf_8(self, tmp_path: Path, locale: Mapping[str, str]) -> None:
        wrong = written(tmp_path / "wrong.jsonl", {"id": "ł" * 300, "title": "x"})
        answer = process("validate", wrong, variables=locale)
        assert answer.code == 3
        assert "id: 'łłł" in answer.out
        missing = process("schema", "蜂", variables=locale)
        assert missing.code == 2

    def test_a_file_with_a_name_that_the_locale_cannot_decode(self, tmp_path: Path, locale: Mapping[str, str]) -> None:
        path = written(tmp_path / "ł.jsonl", CONTENT)
        answer = process("validate", path, variables=locale)
        assert (answer.code, answer.err) == (0, "1 right, 0 wrong\n")


@pytest.mark.parametrize("module", ["typer", "numpy", "confluent_kafka"])
def test_ctrl_c_while_modules_are_imported_leaves_no_trace(module: str) -> None:
    running = subprocess.Popen(
        [*COMMAND, "schema", "content"],
        env=environment({}) | {"PYTHONPROFILEIMPORTTIME": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with running:
        assert running.stdout is not None
        assert running.stderr is not None
        # Each line ends with the name of a module that was imported.
        while running.stderr.readline().split()[-1:] != [module.encode()]:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        said = running.stderr.read()
        assert running.wait(60) == 130
        assert running.stdout.read() == b""
        assert b"Traceback" not in said
