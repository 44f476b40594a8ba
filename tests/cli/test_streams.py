"""The standard streams of the command: closed, full, in another locale; and signals before there is a command."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.harness import Answer, environment, process
from tests.support import wait_until

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

    def test_that_does_not_block_is_waited_for(self, content: Path, tags: Path) -> None:
        """As a pipe from Node.js: full, it takes nothing, and it is full before it is read."""
        lines = content.read_bytes() * 300
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with os.fdopen(reader, "rb") as out, tempfile.TemporaryFile() as err:
            command = [*COMMAND, "tag", "-", "--tags", str(tags)]
            with subprocess.Popen(
                command, env=environment({}), stdin=subprocess.PIPE, stdout=writer, stderr=err
            ) as run:
                assert run.stdin is not None
                run.stdin.write(lines)
                run.stdin.close()
                try:
                    # Nothing is read before it is full.
                    wait_until(lambda: not select.select([], [writer], [], 0)[1], 120, "a full pipe")
                finally:
                    os.close(writer)
                    results = out.read().splitlines()
            err.seek(0)
            assert (run.returncode, b"Traceback" in err.read()) == (0, False)
        assert len(results) == 300
        assert all(json.loads(line)["id"] == CONTENT["id"] for line in results)


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
    with importing(module, COMMAND, "schema", "content") as running:
        running.send_signal(signal.SIGINT)
        ended_without_trace(running, 128 + signal.SIGINT)


@pytest.mark.parametrize("module", ["typer", "confluent_kafka"])
def test_sigterm_ends_the_first_process_of_a_container(module: str) -> None:
    """What ends other processes by default does nothing to it: a container would wait for SIGKILL."""
    alone = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces here")
    with importing(module, (*alone, *COMMAND), "validate", "-") as running:
        os.kill(int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text("ascii")), signal.SIGTERM)
        ended_without_trace(running, 128 + signal.SIGTERM)


@contextmanager
def importing(module: str, command: Sequence[str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that has just imported a module."""
    running = subprocess.Popen(
        [*command, *arguments],
        env=environment({}) | {"PYTHONPROFILEIMPORTTIME": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with running:
        assert running.stderr is not None
        # Each line ends with the name of a module that was imported.
        while running.stderr.readline().split()[-1:] != [module.encode()]:
            assert running.poll() is None
        yield running


def ended_without_trace(running: subprocess.Popen[bytes], code: int) -> None:
    assert running.stdout is not None
    assert running.stderr is not None
    said = running.stderr.read()
    assert running.wait(120) == code
    assert running.stdout.read() == b""
    assert b"Traceback" not in said
