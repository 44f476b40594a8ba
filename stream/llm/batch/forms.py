"""The parts of OpenAI's batch API that are read: the batch, and a line of its results.

From the types of the openai client 3.54 (types/batch.py, batch_create_params.py, file_object.py) and the API reference
of the lines of requests and results.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field, JsonValue

from tagbus.stream.llm.client import Body
from tagbus.stream.llm.shapes import Malformed, Shape, parsed

# The only judge endpoint that batches support.
ENDPOINT: Final = "/v1/chat/completions"
WINDOW: Final = "24h"
# Final states of a batch; each may have results.
ENDED: Final = frozenset({"completed", "expired", "failed", "cancelled"})

# Checked, because it is part of a URL.
ServerId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")]


class FileObject(Shape):
    """An uploaded file."""

    id: ServerId


class BatchError(Shape):
    """Why a batch failed."""

    message: str | None = None
    code: str | None = None


class _Errors(Shape):
    data: tuple[BatchError, ...] | None = None


class Batch(Shape):
    """A batch as the server reports it."""

    id: ServerId
    status: str
    output_file_id: ServerId | None = None
    error_file_id: ServerId | None = None
    errors: _Errors | None = None
    metadata: Mapping[str, str] | None = None

    @property
    def ended(self) -> bool:
        """Whether the batch has ended."""
        return self.status in ENDED

    @property
    def why(self) -> str:
        """The server's reason for a failed batch."""
        found = (self.errors.data if self.errors else None) or ()
        return "; ".join(one.message or one.code or "" for one in found)


class Batches(Shape):
    """A page of batches, newest first."""

    data: tuple[Batch, ...]
    has_more: bool = False


class _Response(Shape):
    status_code: int
    body: JsonValue


class _Failed(Shape):
    code: str | None = None
    message: str | None = None


class ResultLine(Shape):
    """The answer to one request; if it failed, `error` has the reason, or the response has another status."""

    custom_id: str
    response: _Response | None = None
    error: _Failed | None = None

    @property
    def body(self) -> bytes | None:
        """The body of an answer; None if there is none."""
        if self.error is not None or self.response is None or self.response.status_code != 200:
            return None
        return json.dumps(self.response.body).encode()


def request_line(custom_id: str, body: Body) -> bytes:
    """A line of the input file."""
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line, ensure_ascii=True).encode() + b"\n"


def result_lines(lines: Iterator[bytes]) -> Iterator[ResultLine]:
    """The lines of a file of results; other lines are skipped, and their requests count as unanswered."""
    for line in lines:
        try:
            yield parsed(ResultLine, line)
        except Malformed:
            continue
