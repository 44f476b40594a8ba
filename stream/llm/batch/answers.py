"""What a batch answered about contents, on its way to the stage `judge` of a worker.

It goes with the content, in a header of the event that is sent through again, or lies in the folder of a backfill. A
header is signed with the key of the server, which workers have and producers have not: nobody else can say what the
language model thinks. It holds for the very content and the very judge that were asked (`digest_of`).
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
# A header is no longer: 64 tags with long ids.
HEADER_BYTES: Final = 100_000
# Contents whose header came and whose turn has not.
KEPT: Final = 20_000
# Reasons for which a content goes out without the judge.
UNANSWERED: Final = "batch"

Count = Annotated[int, Field(ge=0)]


class Given(Shape):
    """What a batch answered about one content. `answers` by tag id, null where the model did not say."""

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
        """The same as the judge would say it; a tag that is a candidate since is unknown."""
        found = tuple(
            Answer(said) if (said := self.answers.get(one.tag_id)) is not None else Answer(unknown=UNASKED)
            for one in asked.questions
        )
        usage = Usage(self.calls, self.tokens_in, self.tokens_out, self.cached)
        failure = Withheld(self.failure, "the batch did not answer it") if self.failure else None
        return Judged(found, self.backend, self.prompt, self.model, usage, failure, cost=self.cost)


class Prepared(Protocol):
    """Answers that are there before the judge is asked."""

    def take(self, digest: str) -> Given | None:
        """Those of a content; None: it is to be asked."""


def digest_of(version: str, content: Content) -> str:
    """A hash of the judge's version and of all of a content that a prompt may hold."""
    read = content.model_dump(mode="json", include={"id", "title", "text", "language", "scopes", "metadata"})
    whole = json.dumps([version, read], sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


def header(given: Given, key: str) -> bytes:
    """The value of the header, signed."""
    said = given.model_dump_json().encode()
    return _mac(key, said) + b" " + said


class Offered:
    """Answers that came in headers, at most KEPT of them. One event loop."""

    def __init__(self, key: str | None) -> None:
        """Without a key nothing is believed."""
        self._key = key
        self._kept: OrderedDict[str, Given] = OrderedDict()

    def offer(self, value: bytes | None) -> None:
        """A header. One that nobody signed is dropped and counted: anyone may send it."""
        if value is None or self._key is None:
            return
        mac, _, said = value.partition(b" ")
        if len(value) > HEADER_BYTES or not hmac.compare_digest(mac, _mac(self._key, said)):
            LLM_BATCHED.labels("unsigned").inc()
            return
        try:
            given = Given.model_validate_json(said)
        except ValidationError:
            # Of another version of this program.
            LLM_BATCHED.labels("malformed").inc()
            return
        self._kept[given.digest] = given
        self._kept.move_to_end(given.digest)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def take(self, digest: str) -> Given | None:
        """See Prepared. It stays until others come: a batch of contents may be tagged again."""
        return _counted(self._kept.get(digest))


class Filed:
    """Answers in a file, a line a content; where each one stands is in memory. One event loop."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        self._places = dict(_places(file))

    def take(self, digest: str) -> Given | None:
        """See Prepared."""
        return _counted(self.look(digest))

    def look(self, digest: str) -> Given | None:
        """The same, which counts as no use."""
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
