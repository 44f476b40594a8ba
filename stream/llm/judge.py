"""The judge: renders prompts, asks by one backend, assembles answers; a content is never lost."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from tagbus.stream.config import LlmSettings
from tagbus.stream.errors import Retryable
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Answer, Asked, Backend, Judged, Question, Usage
from tagbus.stream.llm.client import Body, Client, Tally
from tagbus.stream.llm.decisions import Contract
from tagbus.stream.llm.profile import Profile
from tagbus.stream.llm.prompts import YES_NO, Prompts, Rendered, tokens
from tagbus.stream.llm.prompts.order import in_requests, shuffled
from tagbus.stream.llm.shapes import MALFORMED, REJECTED, UNASKED, UNSELECTED, Malformed, unknown
from tagbus.stream.telemetry import LLM_UNKNOWN, traces

log = logging.getLogger(__name__)

T = TypeVar("T")

# The most tokens that a chat template adds around the messages.
TEMPLATE: Final = 32


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the model to ask, for every backend."""

    client: Client
    profile: Profile
    model: str | None
    adapter: str | None
    label_mass: float


class Asking(Protocol):
    """A backend: asks some questions about one content."""

    backend: Backend
    # Questions per request.
    at_once: int

    def beside(self, questions: Sequence[Question]) -> int:
        """Tokens of the longest request besides the content's part."""

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """One answer each. Raises as Client.post does."""


@dataclass(frozen=True, slots=True)
class Request:
    """A chat completion request; `estimate`: its upper limit."""

    body: Body
    estimate: Usage


class ByChat(Asking, Protocol):
    """A backend that asks by chat completions, in single calls or in a batch."""

    def request(self, rendered: Rendered, questions: Sequence[Question]) -> Request:
        """The request for at most `at_once` questions."""

    def read(self, answer: chat.Completion, count: int) -> list[Answer]:
        """The answers in a completion to this many questions. Raises Malformed."""


class Decisions:
    """Backend `decision_api`."""

    backend: Backend = "decision_api"

    def __init__(self, server: Server, prompts: Prompts, contract: Contract) -> None:
        self.at_once = server.profile.questions
        self.contract = contract
        self._server = server
        self._prompts = prompts

    def beside(self, questions: Sequence[Question]) -> int:
        """See Asking."""
        # Each question is read separately, after the content.
        return max((tokens(self._prompts.question(one)) for one in questions), default=0) + TEMPLATE

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        server = self._server
        asked = [self._prompts.question(one) for one in questions]
        # `choose.candidates` leaves this backend out where an adapter is not named in place of the model.
        body = self.contract.body(server.adapter or server.model, f"{rendered.task}\n\n{rendered.context}", asked)
        # vLLM and SGLang read the content with each question and report the sum: with ten tags 6.6 times the content
        # and the questions once.
        reads, written = (len(asked), len(asked)) if server.profile.counted == "each" else (1, 0)
        estimate = Usage(1, reads * (rendered.tokens + TEMPLATE) + sum(map(tokens, asked)), written)
        reply = await server.client.post(self.contract.path, body, estimate, deadline, tally)
        if reply.rejected:
            log.warning("%s", reply.rejected)
            return unknown(REJECTED, len(questions))
        try:
            return self.contract.read(reply.body, len(questions), server.label_mass)
        except Malformed as error:
            _warn(error)
            return unknown(MALFORMED, len(questions))


class YesNo:
    """Backend `yesno`: one call a tag, the probability from the first token's alternatives."""

    backend: Backend = "yesno"
    at_once = 1

    def __init__(self, server: Server, prompts: Prompts, words: tuple[str, ...] = YES_NO) -> None:
        """`words`: the two words in the order of the question; the first means that the tag is right."""
        self._server = server
        self._prompts = prompts
        self._words = words

    def beside(self, questions: Sequence[Question]) -> int:
        """See Asking."""
        return max((tokens(self._prompts.yes_no(one)) for one in questions), default=0) + TEMPLATE

    def request(self, rendered: Rendered, questions: Sequence[Question]) -> Request:
        """See ByChat."""
        server = self._server
        question = self._prompts.yes_no(questions[0], self._words)
        body = chat.one_token(server.profile, server.model, rendered, question, server.adapter)
        return request_of(server, body, rendered.tokens + tokens(question))

    def read(self, answer: chat.Completion, count: int) -> list[Answer]:  # noqa: ARG002 - it asks one at once
        """See ByChat."""
        return [chat.yes_no(answer, YES_NO, self._server.label_mass)]

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        return await _asked(self, self._server, rendered, questions, deadline, tally)


class Stated:
    """Backend `stated`: one JSON answer with a number per tag."""

    backend: Backend = "stated"
    at_once = len(chat.LABELS)

    def __init__(self, server: Server, prompts: Prompts) -> None:
        self._server = server
        self._prompts = prompts

    def beside(self, questions: Sequence[Question]) -> int:
        """See Asking."""
        most = self._prompts.longest(questions, self.at_once)
        return tokens(self._prompts.stated(chat.LABELS[: len(most)], most)) + TEMPLATE

    def request(self, rendered: Rendered, questions: Sequence[Question]) -> Request:
        """See ByChat."""
        server, labels = self._server, chat.LABELS[: len(questions)]
        question, schema = self._prompts.stated(labels, questions), chat.stated_schema(labels)
        body = chat.by_schema(server.profile, server.model, rendered, question, schema, len(labels), server.adapter)
        return request_of(server, body, rendered.tokens + tokens(question))

    def read(self, answer: chat.Completion, count: int) -> list[Answer]:
        """See ByChat."""
        return chat.stated(answer, chat.LABELS[:count])

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        return await _asked(self, self._server, rendered, questions, deadline, tally)


class Selector(Protocol):
    """Selects among the questions before they are asked (select.py)."""

    def beside(self, questions: Sequence[Question]) -> int:
        """Tokens of the longest request besides the content's part."""

    async def select(
        self, rendered: Rendered, asked: Asked, order: Sequence[int], deadline: float, tally: Tally
    ) -> set[int]:
        """The indices of the selected questions. Raises as Client.post does."""


class LlmJudge:
    """Judges contents by one backend."""

    def __init__(
        self, asking: Asking, prompts: Prompts, settings: LlmSettings, selector: Selector | None = None
    ) -> None:
        self._asking = asking
        self._prompts = prompts
        self._settings = settings
        self._selector = selector

    async def judge(self, asked: Sequence[Asked]) -> list[Judged]:
        """See Judge."""
        if not asked:
            return []
        # As many contents as use all requests in flight; the others are not rendered yet.
        contents = min(self._settings.in_flight, len(asked))
        # Few contents ask several questions concurrently; many use all requests in flight with one each.
        width = -(-self._settings.in_flight // contents)

        async def one(content: Asked) -> Judged:
            with traces.about(content.content.id):
                return await self._judge(content, width)

        return await in_turn([partial(one, content) for content in asked], contents)

    async def _judge(self, asked: Asked, width: int) -> Judged:
        own = time.monotonic() + self._settings.deadline_seconds
        deadline = own if asked.deadline is None else min(own, asked.deadline)
        tally = Tally()
        answers = unknown(UNASKED, len(asked.questions))
        failure: Retryable | None = None
        order = shuffled(asked)
        rendered = self._prompts.render(asked, self._beside(asked.questions))
        parts: list[list[int]] = []
        try:
            wanted = await self._wanted(rendered, asked, order, deadline, tally)
            answers = [one if at in wanted else Answer(unknown=UNSELECTED) for at, one in enumerate(answers)]
            parts = in_requests(order, wanted, self._asking.at_once)
            failure = await self._ask(rendered, asked, parts, width, deadline, tally, answers)
        except Retryable as error:
            failure = error
        for answer in answers:
            if answer.unknown:
                LLM_UNKNOWN.labels(answer.unknown).inc()
        backend, prompt = self._asking.backend, self._prompts.version
        shown = order if self._selector else tuple(at for part in parts for at in part)
        return Judged(tuple(answers), backend, prompt, tally.model, tally.usage, failure, shown)

    def _beside(self, questions: Sequence[Question]) -> int:
        selecting = self._selector.beside(questions) if self._selector else 0
        return max(self._asking.beside(questions), selecting)

    async def _wanted(
        self, rendered: Rendered, asked: Asked, order: Sequence[int], deadline: float, tally: Tally
    ) -> set[int]:
        """The indices of the questions to ask."""
        if self._selector is None:
            return set(range(len(asked.questions)))
        return await self._selector.select(rendered, asked, order, deadline, tally)

    async def _ask(
        self,
        rendered: Rendered,
        asked: Asked,
        parts: Sequence[Sequence[int]],
        width: int,
        deadline: float,
        tally: Tally,
        answers: list[Answer],
    ) -> Retryable | None:
        """Send `width` requests concurrently, one for the questions of each part, and fill in the answers.

        The first request goes alone, so that the server caches the shared part.
        """

        async def part(places: Sequence[int]) -> Retryable | None:
            try:
                questions = [asked.questions[at] for at in places]
                found = await self._asking.ask(rendered, questions, deadline, tally)
            except Retryable as error:
                return error
            for at, answer in zip(places, found, strict=True):
                answers[at] = answer
            return None

        if not parts:
            return None
        failure = await part(parts[0])
        if failure is not None:
            return failure
        failures = await in_turn([partial(part, places) for places in parts[1:]], width)
        return next((one for one in failures if one is not None), None)


async def in_turn(calls: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """The results of all calls in order, `at_once` at a time. The first error cancels the others and is raised bare.

    The next call begins where one has ended, without a turn of the event loop in between: its request takes the
    connection that was just freed, and the pool has no idle ones to scan each time.
    """
    if at_once == 1:
        return [await call() for call in calls]
    found: dict[int, T] = {}
    left = iter(enumerate(calls))

    async def work() -> None:
        for place, call in left:
            found[place] = await call()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(calls))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [found[place] for place in range(len(calls))]


async def completed(server: Server, request: Request, deadline: float, tally: Tally) -> chat.Completion | None:
    """A chat completion; None if the server rejects this request. Raises as Client.post does, and Malformed."""
    reply = await server.client.post(chat.PATH, request.body, request.estimate, deadline, tally)
    if reply.rejected:
        log.warning("%s", reply.rejected)
        return None
    return chat.completion(reply.body)


def request_of(server: Server, body: Body, prompt: int) -> Request:
    """A request whose prompt has at most this many tokens, without those of the chat template."""
    most = body[server.profile.token_limit]
    return Request(body, Usage(1, prompt + TEMPLATE, most if isinstance(most, int) else 0))


async def _asked(
    asking: ByChat, server: Server, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
) -> list[Answer]:
    try:
        answer = await completed(server, asking.request(rendered, questions), deadline, tally)
        return unknown(REJECTED, len(questions)) if answer is None else asking.read(answer, len(questions))
    except Malformed as error:
        _warn(error)
        return unknown(MALFORMED, len(questions))


def _warn(error: Malformed) -> None:
    log.warning("an answer of the language model is not of its endpoint's shape: %s", error)
