"""A scripted server with OpenAI's batch API.

Forms: openai/openai-python 3.54, src/openai/types/batch.py, batch_create_params.py, batch_list_params.py and
file_object.py; a line of requests and of results, and the error of a request that expired: the API reference's objects
`batch/request-input` and `batch/request-output`.
"""

import email
import email.policy
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from pydantic import JsonValue

from tests.llm import answers
from tests.llm.scripted import ABSENT, Request, Say, Script

# The outcome of a request: answered, or an error line of that code.
Outcome = Callable[[str], str | None]


@dataclass
class BatchServer:
    """Answers a batch by `script`, a chat completion each, after `looks` polls."""

    script: Script = field(default_factory=answers.chat)
    looks: int = 1
    outcome: Outcome = lambda _: None
    status: str = "completed"
    errors: Sequence[dict[str, JsonValue]] = ()
    # Answers to a path that precede those of the API, in order.
    first: dict[str, list[Say]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, JsonValue]] = field(default_factory=dict)
    # Batches of others on the same account.
    others: int = 0
    _seen: dict[str, int] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def __call__(self, request: Request) -> Say:
        path = urlsplit(request.path).path.removeprefix("/v1")
        match request.method, path.strip("/").split("/"):
            case "POST", ["files"]:
                made = self._upload(request)
            case "POST", ["batches"]:
                made = self._create(request)
            case "GET", ["batches"]:
                made = self._list(parse_qs(urlsplit(request.path).query))
            case "GET", ["batches", name] if name in self.batches:
                made = self._look(name)
            case "GET", ["files", name, "content"] if name in self.files:
                made = Say(self.files[name])
            case _:
                return ABSENT
        # Only the answer is lost: the server performed the request.
        lost = self.first.get(f"{request.method} {path}")
        return lost.pop(0) if lost else made

    def requests(self) -> list[dict[str, JsonValue]]:
        """All lines of requests of all batches."""
        made = [self.files[str(one["input_file_id"])] for one in self.batches.values()]
        return [json.loads(line) for file in made for line in file.splitlines()]

    def _upload(self, request: Request) -> Say:
        kind = {name.lower(): value for name, value in request.headers.items()}["content-type"].encode()
        form = email.message_from_bytes(b"content-type: " + kind + b"\n\n" + request.raw, policy=email.policy.HTTP)
        parts = {str(part.get_param("name", header="content-disposition")): part for part in form.iter_parts()}
        assert parts["purpose"].get_content().strip() == "batch"
        name = self._put(parts["file"].get_payload(decode=True))
        return Say(
            {
                "id": name, "object": "file", "bytes": len(self.files[name]), "created_at": 1, "purpose": "batch",
                "filename": parts["file"].get_filename(), "status": "processed",
            }
        )  # fmt: skip

    def _create(self, request: Request) -> Say:
        body = request.body
        assert set(body) == {"input_file_id", "endpoint", "completion_window", "metadata"}
        assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
        if len(self.files[str(body["input_file_id"])].splitlines()) > 50_000:
            return Say({"error": {"message": "too many requests"}}, 400)
        name = f"batch_{next(self._ids)}"
        self.batches[name] = {
            "id": name, "object": "batch", "created_at": 1, "status": "validating", "errors": None,
            "output_file_id": None, "error_file_id": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, **body,
        }  # fmt: skip
        return Say(self.batches[name])

    def _list(self, query: dict[str, list[str]]) -> Say:
        """Newest first, a page at a time; those of others come before ours."""
        foreign = [{"id": f"batch_x{number}", "status": "completed", "metadata": None} for number in range(self.others)]
        all_ = [*foreign, *reversed(self.batches.values())]
        after = query.get("after", [""])[0]
        start = next((place for place, one in enumerate(all_, start=1) if one["id"] == after), 0)
        page = all_[start : start + int(query["limit"][0])]
        return Say({"object": "list", "data": page, "has_more": start + len(page) < len(all_)})

    def _look(self, name: str) -> Say:
        batch = self.batches[name]
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] < self.looks:
            batch["status"] = "in_progress"
        elif batch["status"] not in {"completed", "failed", "expired", "cancelled"}:
            self._end(batch)
        return Say(batch)

    def _end(self, batch: dict[str, JsonValue]) -> None:
        batch["status"] = self.status
        if self.status == "failed":
            batch["errors"] = {"object": "list", "data": list(self.errors)}
            return
        output, errors = list[bytes](), list[bytes]()
        for line in self.files[str(batch["input_file_id"])].splitlines():
            asked = json.loads(line)
            assert set(asked) == {"custom_id", "method", "url", "body"}
            assert (asked["method"], asked["url"]) == ("POST", "/v1/chat/completions")
            code = self.outcome(asked["custom_id"])
            said = self.script(Request("POST", "/v1/chat/completions", {}, asked["body"]))
            response = {"status_code": said.status, "request_id": "req_1", "body": said.body}
            error = None if code is None else {"code": code, "message": "This request could not be executed."}
            done = {
                "id": f"batch_req_{len(output)}", "custom_id": asked["custom_id"],
                "response": None if error else response, "error": error,
            }  # fmt: skip
            (output if error is None and said.status == 200 else errors).append(json.dumps(done).encode())
        # In a different order.
        batch["output_file_id"] = self._put(b"\n".join(reversed(output))) if output else None
        batch["error_file_id"] = self._put(b"\n".join(errors)) if errors else None

    def _put(self, content: bytes) -> str:
        name = f"file-{next(self._ids)}"
        self.files[name] = content
        return name
