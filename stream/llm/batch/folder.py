"""The folder of a batch: its requests, progress and answers. One process at a time.

`job.json` is written when all requests are, so a folder without it is started over; `answers.jsonl` when all answers
are there. In between, each part has the files needed to resume: its requests, its state, its results.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self, TypeVar

from pydantic import Field, ValidationError

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.llm.base import Usage
from tagbus.stream.llm.batch.answers import Given
from tagbus.stream.llm.shapes import Shape

M = TypeVar("M", bound=Shape)

_JOB: Final = "job.json"
_ANSWERS: Final = "answers.jsonl"
_SENT: Final = "sent.json"


class Job(Shape):
    """The job of a batch: its judge, its contents, and its number of parts. `run` names its batches on the server."""

    run: str
    version: str
    about: str
    parts: int = Field(ge=0)
    contents: int = Field(ge=0)


class Line(Shape):
    """A content of a part: its digest, the tags asked about, in order, and the limit of tokens in and out of each
    request."""

    digest: str
    tags: tuple[str, ...]
    requests: tuple[tuple[int, int], ...]

    @property
    def estimates(self) -> list[Usage]:
        """The upper estimate of each request."""
        return [Usage(1, tokens_in, tokens_out) for tokens_in, tokens_out in self.requests]


class Part(Shape):
    """The progress of a part. `reserved` before it is sent, `file` before its batch is created."""

    requests: int
    tokens_in: int
    tokens_out: int
    reserved: bool = False
    withheld: str | None = None
    file: str | None = None
    batch: str | None = None
    status: str | None = None

    @property
    def estimate(self) -> Usage:
        """Its upper estimate."""
        return Usage(self.requests, self.tokens_in, self.tokens_out)

    @property
    def done(self) -> bool:
        """Whether it has its results, or will have none."""
        return self.withheld is not None or self.status is not None


class Folder:
    """The files of a batch. Use as a context manager, which locks it against other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def __enter__(self) -> Self:
        """Raises UserError if it cannot be created, or another process has it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"--batch {self.path}: another process is using it, expected one at a time") from None
        except OSError as error:
            raise UserError(f"--batch {self.path}: {error.strerror}; expected a writable folder") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def job(self, version: str, about: str) -> Job | None:
        """The job that is in the folder; None: none. Raises UserError if that is another job."""
        file = self.path / _JOB
        if not file.exists():
            return None
        job = _read(Job, file)
        if (job.version, job.about) != (version, about):
            raise UserError(
                f"--batch {self.path} holds a batch about {shorten(job.about)} for judge {job.version}, and asked is "
                f"{shorten(about)} for judge {version}; expected the same, or another folder"
            )
        return job

    def begin(self) -> str:
        """Clear an unfinished start; returns a name for the batches."""
        for file in self.path.glob("part-*"):
            file.unlink()
        return secrets.token_hex(8)

    def asked(self, job: Job) -> None:
        """Record that all requests are written."""
        _write(self.path / _JOB, job)

    def requests(self, part: int) -> Path:
        """The input file of a part."""
        return self.path / f"part-{part:04}.jsonl"

    def contents(self, part: int) -> Path:
        """The contents of a part, one line each, in the order of their requests."""
        return self.path / f"part-{part:04}.contents.jsonl"

    def results(self, part: int) -> Path:
        """The results of a part: those that succeeded, then the errors."""
        return self.path / f"part-{part:04}.results.jsonl"

    def lines(self, part: int) -> Iterator[Line]:
        """The contents of a part."""
        with self.contents(part).open("rb") as lines:
            for line in lines:
                yield Line.model_validate_json(line)

    def part(self, number: int) -> Part:
        """The progress of a part."""
        return _read(Part, self._state(number))

    def note(self, number: int, part: Part) -> None:
        """Record the progress of a part durably."""
        _write(self._state(number), part)

    @property
    def answers(self) -> Path:
        """The answers, one line per content; missing until all are there."""
        return self.path / _ANSWERS

    def answer(self, found: Iterator[Given]) -> None:
        """Write the final answers."""
        beside = self.answers.with_suffix(".new")
        with beside.open("wb") as lines:
            for given in found:
                lines.write(given.model_dump_json().encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        beside.replace(self.answers)

    @property
    def sent(self) -> int | None:
        """How many contents were sent again; None: none yet."""
        file = self.path / _SENT
        return int(json.loads(file.read_bytes())["contents"]) if file.exists() else None

    def note_sent(self, contents: int) -> None:
        """Record that all contents were sent again."""
        (self.path / _SENT).write_text(json.dumps({"contents": contents}), encoding="utf-8")

    def _state(self, number: int) -> Path:
        return self.path / f"part-{number:04}.json"


def _write(file: Path, value: Shape) -> None:
    beside = file.with_suffix(".new")
    with beside.open("wb") as out:
        out.write(value.model_dump_json(indent=1).encode())
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


def _read(shape: type[M], file: Path) -> M:
    try:
        return shape.model_validate_json(file.read_bytes())
    except ValidationError:
        raise UserError(f"{file}: expected a file that `tagbus` wrote; use another folder") from None
