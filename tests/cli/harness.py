"""Shared by the tests of the command: a call in this process, one in a child process, and a small memory."""

import io
import json
import logging
import os
import random
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.cli.commands import execute
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.contract.fields import Event

TAGS, EXEMPLARS, CONTENTS = 200, 300, 40


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def one_line(self) -> str:
        """The one line on standard error, which is no trace."""
        (line,) = self.err.splitlines()
        assert line.startswith("tagbus: "), line
        return line


class Cli:
    """The command in this process: its own arguments, environment and standard input.

    It is as good as a process but for what only a process has: signals, logging, pipes, the end of the interpreter.
    """

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture
        clean(patch)

    def __call__(
        self,
        *arguments: str | Path,
        stdin: bytes = b"",
        settings: Mapping[str, str] | None = None,
        **more: str,
    ) -> Answer:
        """`settings` and `more`: names without the prefix."""
        self._capture.readouterr()
        with self._patch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            for name, value in {**(settings or {}), **more}.items():
                patch.setenv(f"TAGBUS_{name}", value)
            patch.setattr(logging.root, "handlers", [])
            patch.setattr(logging.root, "level", logging.root.level)
            code = _code([*map(str, arguments)])
        out, err = self._capture.readouterr()
        return Answer(code, out, err)


def _code(arguments: Sequence[str]) -> int:
    try:
        return execute(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0


def clean(patch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the environment that runs the tests."""
    for name in environment({}).keys() ^ os.environ.keys():
        patch.delenv(name)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without its own settings, and these."""
    bare = {name: value for name, value in os.environ.items() if not name.upper().startswith("TAGBUS_")}
    return bare | {f"TAGBUS_{name}": value for name, value in settings.items()}


def process(
    *arguments: str | Path,
    stdin: bytes = b"",
    settings: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Answer:
    """The command in a child process. `variables`: environment variables that are not settings."""
    done = subprocess.run(
        [sys.executable, "-m", "tagbus.stream.cli", *map(str, arguments)],
        input=stdin,
        env={**environment(settings or {}), **(variables or {})},
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(frozen=True)
class Slice:
    """A part of the examples small enough to be encoded in a second or two, and where it lies as files."""

    tags: tuple[Tag, ...]
    exemplars: tuple[Exemplar, ...]
    contents: tuple[Content, ...]
    folder: Path

    @property
    def memory(self) -> tuple[str, str, str, str]:
        """The arguments that name it."""
        return "--tags", str(self.folder / "tags.jsonl"), "--exemplars", str(self.folder / "exemplars.jsonl")

    @property
    def file(self) -> Path:
        return self.folder / "content.jsonl"


def cut(folder: Path) -> Slice:
    """The 200 tags that are used most, 300 exemplars that carry them, and 40 titles."""
    exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    counts = Counter(tag for item in exemplars for tag in item.accepted)
    chosen = {tag for tag, _ in counts.most_common(TAGS)}
    tags = tuple(tag for tag in files.all_of(example("tags.jsonl"), files.tag_of) if tag.id in chosen)
    some = tuple(item for item in exemplars if chosen & set(item.accepted))[:EXEMPLARS]
    contents = tuple(files.all_of(example("content.jsonl"), files.content_of)[:CONTENTS])
    for name, events in (("tags", tags), ("exemplars", some), ("content", contents)):
        write(folder / f"{name}.jsonl", events)
    return Slice(tags, some, contents, folder)


def write(path: Path, events: Sequence[Event]) -> Path:
    """The events as JSON lines."""
    path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    return path


def large(path: Path) -> Path:
    """Three contents, the second of them of 1.5 MB, which few compressions make smaller."""
    letters = [chr(code) for code in range(0x4E00, 0x9FA5)]
    text = "".join(random.Random(7).choices(letters, k=500_000))  # noqa: S311 - not a secret
    contents = [Content(id="a", text="x"), Content(id="b", text=text), Content(id="c", text="z")]
    return write(path, contents)


def objects(text: str) -> list[dict[str, object]]:
    """The JSON objects of a command's output, a line each."""
    return [json.loads(line) for line in text.splitlines()]


def scripts() -> dict[str, str]:
    """A text for each script that Unicode names, made of its own letters."""
    found: dict[str, list[str]] = {}
    for code in range(0x20, 0x323B0):
        name = unicodedata.name(chr(code), "")
        if unicodedata.category(chr(code)).startswith("L") and name:
            found.setdefault(name.split(" ")[0].split("-")[0], []).append(chr(code))
    return {script: "".join(letters[:30]) for script, letters in found.items()}
