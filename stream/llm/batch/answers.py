"""Batch answers about contents, on their way to the stage `judge` of a worker.

They travel with the content, in a header of the event that is sent again, or are read from the folder of a backfill. A
header is signed with the key of the server, which workers have and producers do not: no one else can forge the language
model's answers. It is valid only for the exact content and judge that were asked (`digest_of`).
"""

import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import Field, ValidationError

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Withheld
from tagbus.stream.llm.base import Answer, Asked, Backend, Judged, Usage
from tagbus.stream.llm.shapes import UNASKED, Probability, Shape
from tagbus.stream.telemetry import LLM_BATCHED

# Name of the header.
JUDGED: Final = "tagbus.judged"
# The limit of a header: 64 tags with long ids.
HEADER_BYTES: Final = 100_000
# The number of contents whose header has arrived and whose turn has not.
KEPT: Final = 20_000
# Reasons for publishing a content without the judge.
UNANSWERED: Final = "batch"

Count = Annotated[int, Field(ge=0)]


class Given(Shape):
    """A batch's answers about one content. `answers` by tag id, null where the model gave none."""

    digest: str = Field(pattern=r"^[0-9a-f]{32}$")
    answers: dict[str, Probability | None] = Field(default_factory=dict, max_length=1000)
    backend: Backend = "stated"
    prompt: str = Field("", max_length=100)
    model: str | None = Field(None, max_length=200)
    calls: Count = 0
    tokens_in: Count = 0
    tokens_out: Count = 0
    cached: Count = 0
    cost: float | None = Field(None, ge=0, allow_inf_nan=False)
    failure: str | None = Field(None, max_length=20)

    def judged(self, asked: Asked) -> Judged:
        """The same as the judge's result; a tag that became a candidate later is unknown."""
        found = tuple(
            Answer(said) if (said := self.answers.get(one.tag_id)) is not None else Answer(unknown=UNASKED)
            for one in asked.questions
        )
        usage = Usage(self.calls, self.tokens_in, self.tokens_out, self.cached)
        failure = Withheld(self.failure, "the batch did not answer it") if self.failure else None
        return Judged(found, self.backend, self.prompt, self.model, usage, failure, cost=self.cost)


class Prepared(Protocol):
    """Answers that exist before the judge is asked."""

    def take(self, digest: str) -> Given | None:
        """The answers for a content; None: ask the judge."""


def digest_of(version: str, content: Content) -> str:
    """A hash of the judge's version and of everything of a content that a prompt may contain."""
    read = content.model_dump(mode="json", include={"id", "title", "text", "language", "scopes", "metadata"})
    whole = json.dumps([version, read], sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


def header(given: Given, key: str) -> bytes:
    """The signed value of the header."""
    said = given.model_dump_json().encode()
    return _mac(key, said) + b" " + said


class Offered:
    """Answers received in headers, at most KEPT of them. One event loop."""

    def __init__(self, key: str | None) -> None:
        """Without a key no header is accepted."""
        self._key = key
        self._kept: OrderedDict[str, Given] = OrderedDict()

    def offer(self, value: bytes | None) -> None:
        """Take in a header. An unsigned one is dropped and counted: anyone may send it."""
        if value is None or self._key is None:
            return
        mac, _, said = value.partition(b" ")
        if len(value) > HEADER_BYTES or not hmac.compare_digest(mac, _mac(self._key, said)):
            LLM_BATCHED.labels("unsigned").inc()
            return
        try:
            given = Given.model_validate_json(said)
        except ValidationError:
            # From another version of this program.
            LLM_BATCHED.labels("malformed").inc()
            return
        self._kept[given.digest] = given
        self._kept.move_to_end(given.digest)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def take(self, digest: str) -> Given | None:
        """See Prepared. It is kept until newer ones evict it: a batch of contents may be tagged again."""
        return _counted(self._kept.get(digest))


class Filed:
    """Answers in a file, one line per content, with an index in memory. One event loop."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        self._places = dict(_places(file))

    def take(self, digest: str) -> Given | None:
        """See Prepared."""
        return _counted(self.look(digest))

    def look(self, digest: str) -> Given | None:
        """The same, without counting a use."""
        place = self._places.get(bytes.fromhex(digest))
        if place is None:
            return None
        self._file.seek(place)
        return Given.model_validate_json(self._file.readline())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _places(file: Path) -> Iterator[tuple[bytes, int]]:
    place = 0
    with file.open("rb") as lines:
        for line in lines:
            yield bytes.fromhex(Given.model_validate_json(line).digest), place
            place += len(line)


def _counted(given: Given | None) -> Given | None:
    if given is not None:
        LLM_BATCHED.labels("used").inc()
    return given


def _mac(key: str, said: bytes) -> bytes:
    return hmac.digest(key.encode(), b"tagbus.judged\0" + said, "sha256").hex().encode()
