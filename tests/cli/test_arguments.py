"""The command line: readable help, and a one-line error for a user's mistake."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tagbus.stream.cli.commands import _ended
from tagbus.stream.encoder.release import GOLDEN, MODEL, RELEASE, TOKENIZER, default_folder
from tests.cli.harness import Cli, environment, process

COMMANDS = {
    "run": ["--log", "--from", "--until", "--group", "--output", "--rate"],
    "index": ["--log"],
    "tag": ["FILE", "--tags", "--exemplars", "--cache"],
    "explain": [
        "CONTENT_ID|FILE",
        "--tags",
        "--exemplars",
        "--knowledge",
        "--cache",
        "--since",
        "--tag",
        "--most",
        "--json",
    ],
    "prompt show": ["CONTENT_ID|FILE", "--tags", "--exemplars", "--knowledge", "--cache", "--since"],
    "publish": ["FILE", "--to"],
    "retire": ["KEY", "--from", "--replaced-by"],
    "tail": ["TOPIC", "--count", "--from", "--as"],
    "ping": ["--seconds"],
    "replay": ["--reason", "--since", "--until", "--limit", "--send"],
    "skip": ["TOPIC:PARTITION:OFFSET"],
    "retag": ["--since", "--tag", "--send"],
    "validate": ["FILE", "--as"],
    "check": [],
    "calibrate": ["FILE", "--tags", "--exemplars", "--out", "--cache"],
    "evaluate": ["FOLDER", "--out", "--cache"],
    "config": [],
    "asyncapi": [],
    "schema": ["TOPIC"],
    "demo": ["--kafka"],
    "topics create": ["--output"],
    "release list": [],
    "release build": ["NAME", "--follow", "--every", "--triton", "--log"],
    "release check": ["NAME", "FILE", "--log"],
    "release activate": ["NAME"],
    "release drop": ["NAME", "--minutes"],
}


def test_help_names_every_command(tagbus: Cli) -> None:
    answer = tagbus("--help")
    assert answer.code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command.split()[0]}\b", answer.out), command


def test_called_alone_it_shows_its_help(tagbus: Cli) -> None:
    assert tagbus().out.strip() == tagbus("--help").out.strip()
    assert tagbus().err == ""


@pytest.mark.parametrize(("command", "names"), COMMANDS.items(), ids=str)
def test_help_of_a_command_says_what_it_does_and_names_its_arguments(
    tagbus: Cli, command: str, names: list[str]
) -> None:
    answer = tagbus(*command.split(), "--help")
    assert answer.code == 0
    assert f"Usage: tagbus {command}" in answer.out
    for name in names:
        assert name.lower() in answer.out.lower(), name
    # A sentence under the usage line, with its full stop.
    assert re.search(r"\n +[A-Z][^│]+\.", answer.out)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nope"], "No such command 'nope'"),
        (["topics", "nope"], "No such command 'nope'"),
        (["tag", "--nope"], "No such option: --nope"),
        (["tag"], "Missing option '--tags'"),
        (["schema"], "Missing argument"),
        (["config", "extra"], "unexpected extra argument"),
        (["tail", "nope"], "'nope' is not one of 'tagged', 'content.dlq'"),
        (["tail", "--count", "0"], "greater than or equal to 1"),
        (["tail", "--count", "many"], "'--count'"),
        (["run", "--log", "loud"], "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
        (["replay", "--limit", "0"], "greater than or equal to 1"),
        (["run", "--from", "earliest"], "a backfill needs --from, --group and --output"),
        (["demo", "--kafka", "redpanda"], "'redpanda' is not one of 'mock', 'apache'"),
        (["publish", "x", "--to", "tagged"], "'tagged' is not one of"),
        (["schema", "nope"], "'nope' is not a topic of the contract"),
        (["validate", "/nowhere/at/all"], "/nowhere/at/all cannot be read: No such file or directory"),
        (["validate", "/"], "/ cannot be read: Is a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_code_2(tagbus: Cli, arguments: list[str], expected: str) -> None:
    answer = tagbus(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert expected in answer.one_line()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("KAFKA__DELIVERY", "twice", "TAGBUS_KAFKA__DELIVERY='twice': Input should be 'exactly_once' or"),
        ("KAFKA__BROKER", "x:1", "TAGBUS_KAFKA__BROKER"),
        ("KAFKAS__BROKERS", "x:1", "TAGBUS_KAFKAS__BROKERS is not a setting of tagbus"),
        ("KAFKA__OPTIONS", "{", "TAGBUS_KAFKA__OPTIONS: expected a JSON object of strings"),
        ("BATCH__CONTENTS", "0", "TAGBUS_BATCH__CONTENTS='0': Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_one_line_and_code_2(tagbus: Cli, variable: str, value: str, expected: str) -> None:
    answer = tagbus("config", settings={variable: value})
    assert answer.code == 2
    assert expected in answer.one_line()


def test_an_index_that_nobody_shares_is_refused(tagbus: Cli) -> None:
    answer = tagbus("index")
    assert answer.code == 2
    assert answer.one_line().endswith("TAGBUS_MEMORY__KIND=exact: this memory is not shared, expected server")


def test_an_indexer_without_a_broker_ends_in_one_line(tagbus: Cli) -> None:
    answer = tagbus(
        "index", MEMORY__KIND="server", KAFKA__BROKERS="127.0.0.1:1", RETRY__DEADLINE_SECONDS="2", HEALTH__PORT="0"
    )
    assert answer.code == 4
    assert "Traceback" not in answer.err


def test_ctrl_c_ends_it_at_once_while_it_waits_for_standard_input(tmp_path: Path) -> None:
    tags = tmp_path / "tags.jsonl"
    tags.write_text('{"id": "t1", "name": "bees"}\n')
    running = subprocess.Popen(
        [sys.executable, "-m", "tagbus.stream.cli", "tag", "--tags", tags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({}),
    )
    with running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(b'{"id": "a", "title": "Bees"}\n' * 256)
        running.stdin.flush()
        assert running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
        assert running.stderr.read() == b""


def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "tagbus.stream.cli", "asyncapi"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({}),
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    said = running.stderr.read()
    running.stderr.close()
    assert running.wait(120) == 0
    assert said == b""


class TestExitCodes:
    """The table of errors.py, as a shell sees it."""

    def test_0_done(self) -> None:
        answer = process("schema", "content")
        assert (answer.code, answer.err) == (0, "")

    def test_2_a_users_mistake(self) -> None:
        answer = process("schema", "nope")
        assert answer.code == 2
        answer.one_line()

    def test_2_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            answer = process(
                "run",
                settings={"KAFKA__BROKERS": "127.0.0.1:1", "HEALTH__PORT": port},
                variables={"PYTHONWARNINGS": "default::ResourceWarning"},
            )
        assert answer.code == 2
        assert answer.err.splitlines()[-1].startswith(
            f"tagbus: TAGBUS_HEALTH__HOST=127.0.0.1 TAGBUS_HEALTH__PORT={port}"
        )
        assert "Traceback" not in answer.err
        assert "unclosed" not in answer.err

    def test_3_a_check_that_found_something_wrong(self) -> None:
        answer = process("validate", "-", stdin=b"{}\n")
        assert answer.code == 3
        assert "Traceback" not in answer.err

    def test_4_a_dependency_that_does_not_answer(self) -> None:
        answer = process("run", settings={"KAFKA__BROKERS": "127.0.0.1:1", "HEALTH__PORT": "0"})
        assert answer.code == 4
        assert answer.err.splitlines()[-1].startswith("tagbus: no broker answered for topic releases")
        assert "Traceback" not in answer.err

    def test_6_a_tokenizer_that_is_not_the_releases(self, tmp_path: Path) -> None:
        for name in (MODEL, GOLDEN, RELEASE):
            (tmp_path / name).symlink_to(default_folder() / name)
        changed = (default_folder() / TOKENIZER).read_text().replace('"the"', '"eht"', 1)
        (tmp_path / TOKENIZER).write_text(changed)
        tags = tmp_path / "tags.jsonl"
        tags.write_text('{"id": "t1", "name": "bees"}\n')
        answer = process("tag", "-", "--tags", tags, settings={"ENCODER__FOLDER": str(tmp_path)})
        assert answer.code == 6
        assert f"{tmp_path / TOKENIZER} has the SHA-256" in answer.one_line()

    def test_6_a_model_folder_that_is_empty(self, tmp_path: Path) -> None:
        shutil.copy(default_folder() / RELEASE, tmp_path)
        answer = process("run", settings={"ENCODER__FOLDER": str(tmp_path), "HEALTH__PORT": "0"})
        assert answer.code == 6
        assert "expected model.onnx, tokenizer.json, golden.json and release.json" in answer.err.splitlines()[-1]
        assert "Traceback" not in answer.err

    def test_9_an_event_on_the_command_line_that_can_never_be_tagged(self) -> None:
        answer = process("retire", "article-3", "--from", "exemplars")
        assert answer.code == 9
        assert "expected `id/people` or `id/machine`" in answer.one_line()

    def test_2_a_successor_of_what_is_no_tag(self) -> None:
        answer = process("retire", "article-3", "--from", "content", "--replaced-by", "article-4")
        assert answer.code == 2
        assert answer.one_line() == (
            "tagbus: --replaced-by: only a tag has successors, expected --from tags, not --from content"
        )


LOST = """
import os, signal, sys
from tagbus.stream import cli

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

cli.GRACE_SECONDS = 0.2
signal.signal(signal.SIGINT, cli._interrupt)
Lost()
sys.stdin.read()
"""


def test_ctrl_c_that_comes_where_its_exception_is_lost_ends_it_all_the_same() -> None:
    """In a destructor an exception is reported and goes no further."""
    running = subprocess.Popen(
        [sys.executable, "-c", LOST], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment({})
    )
    with running:
        assert running.stderr is not None
        assert running.wait(120) == 130
        assert b"KeyboardInterrupt" in running.stderr.read()


LATE = """
import os, signal, time
from tagbus.stream import cli
from tagbus.stream.cli import commands

class Slow:
    def __del__(self, clock=time.monotonic):
        end = clock() + 0.5
        while clock() < end:
            pass

def execute(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except KeyboardInterrupt:
        return cli.INTERRUPTED

slow = Slow()
cli.GRACE_SECONDS = 0.2
commands.execute = execute
cli.main()
"""


def test_ctrl_c_ends_it_with_its_code_also_where_the_interpreter_ends_late() -> None:
    """By then it has taken its own handlers away: an alarm would end the process as a signal does."""
    done = subprocess.run([sys.executable, "-c", LATE], stderr=subprocess.PIPE, env=environment({}), check=False)
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_the_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """Whichever command makes it: those that train write to a folder of the user's."""
    (tmp_path / "file").touch()
    assert _ended(lambda: (tmp_path / place).mkdir(parents=True, exist_ok=True)) == 2
    assert capsys.readouterr().err.startswith(f"tagbus: {tmp_path / place} cannot be written: ")
