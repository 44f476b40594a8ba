"""The judge: prompts rendered, questions asked by one backend, answers put together; a content is never lost."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from tagbus.stream.config import LlmSettings
from tagbus.stream.errors import Retryable
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Answer, Asked, Backend, Judged, Question
from tagbus.stream.llm.client import Body, Client, Tally
from tagbus.stream.llm.decisions import Contract
from tagbus.stream.llm.profile import Profile
from tagbus.stream.llm.prompt import YES_NO, Prompts, Rendered, tokens
from tagbus.stream.llm.shapes import MALFORMED, REJECTED, UNASKED, Malformed, unknown
from tagbus.stream.telemetry import LLM_UNKNOWN

log = logging.getLogger(__name__)

T = TypeVar("T")

# What a chat template adds around the messages, in tokens, at most.
TEMPLATE: Final = 32


@dataclass(frozen=True, slots=True)
class Server:
    """Where and whom to ask: what every backend needs."""

    client: Client
    profile: Profile
    model: str | None
    adapter: str | None
    label_mass: float


class Asking(Protocol):
    """A backend: how some questions about one content are asked."""

    backend: Backend
    # Questions of one request.
    at_once: int

    def beside(self, questions: Sequence[Question]) -> int:
        """Tokens of the longest request besides the content's part."""

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """One answer each. Raises as Client.post does."""


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
        # Each question is read behind the content by itself.
        return max((tokens(self._prompts.question(one)) for one in questions), default=0) + TEMPLATE

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        server = self._server
        asked = [self._prompts.question(one) for one in questions]
        model = server.adapter if server.adapter and server.profile.adapter == "model" else server.model
        body = self.contract.body(model, f"{rendered.task}\n\n{rendered.context}", asked)
        estimate = rendered.tokens + sum(map(tokens, asked))
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

    def __init__(self, server: Server, prompts: Prompts, words: Sequence[str] = YES_NO) -> None:
        """`words`: the two words in the order of the question; the first means that the tag is right."""
        self._server = server
        self._prompts = prompts
        self._words = words

    def beside(self, questions: Sequence[Question]) -> int:
        """See Asking."""
        return max((tokens(self._prompts.yes_no(one)) for one in questions), default=0) + TEMPLATE

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        server = self._server
        question = self._prompts.yes_no(questions[0], self._words)
        body = chat.one_token(server.profile, server.model, rendered, question, server.adapter)
        estimate = rendered.tokens + tokens(question) + TEMPLATE
        try:
            answer = await completed(server, body, estimate, deadline, tally)
        except Malformed as error:
            _warn(error)
            return unknown(MALFORMED, 1)
        return unknown(REJECTED, 1) if answer is None else [chat.yes_no(answer, YES_NO, server.label_mass)]


class Stated:
    """Backend `stated`: one JSON answer with a number per tag."""

    backend: Backend = "stated"
    at_once = len(chat.LABELS)

    def __init__(self, server: Server, prompts: Prompts) -> None:
        self._server = server
        self._prompts = prompts

    def beside(self, questions: Sequence[Question]) -> int:
        """See Asking."""
        first = questions[: self.at_once]
        return tokens(self._prompts.stated(chat.LABELS[: len(first)], first)) + TEMPLATE

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        """See Asking."""
        server, labels = self._server, chat.LABELS[: len(questions)]
        question = self._prompts.stated(labels, questions)
        schema = chat.stated_schema(labels)
        body = chat.by_schema(server.profile, server.model, rendered, question, schema, len(labels), server.adapter)
        estimate = rendered.tokens + tokens(question) + TEMPLATE
        try:
            answer = await completed(server, body, estimate, deadline, tally)
            return unknown(REJECTED, len(questions)) if answer is None else chat.stated(answer, labels)
        except Malformed as error:
            _warn(error)
            return unknown(MALFORMED, len(questions))


class LlmJudge:
    """Judges contents by one backend."""

    def __init__(self, asking: Asking, prompts: Prompts, settings: LlmSettings) -> None:
        self._asking = asking
        self._prompts = prompts
        self._settings = settings

    async def judge(self, asked: Sequence[Asked]) -> list[Judged]:
        """See Judge."""
        # So many contents are under way that all requests in flight are used; of the others nothing is rendered yet.
        slots = asyncio.Semaphore(self._settings.in_flight)

        async def one(content: Asked) -> Judged:
            async with slots:
                return await self._judge(content)

        return await together([one(content) for content in asked])

    async def _judge(self, asked: Asked) -> Judged:
        own = time.monotonic() + self._settings.deadline_seconds
        deadline = own if asked.deadline is None else min(own, asked.deadline)
        asking, tally = self._asking, Tally()
        rendered = self._prompts.render(asked, asking.beside(asked.questions))
        parts = [
            asked.questions[start : start + asking.at_once] for start in range(0, len(asked.questions), asking.at_once)
        ]
        # The first one alone: with it the server has computed what all of them share.
        done = await self._part(rendered, parts[0], deadline, tally) if parts else ([], None)
        rest = [] if done[1] else parts[1:]
        others = await together([self._part(rendered, part, deadline, tally) for part in rest])
        answers = [answer for found, _ in (done, *others) for answer in found]
        answers += unknown(UNASKED, len(asked.questions) - len(answers))
        failures = [failure for _, failure in (done, *others) if failure is not None]
        for answer in answers:
            if answer.unknown:
                LLM_UNKNOWN.labels(answer.unknown).inc()
        return Judged(
            tuple(answers),
            asking.backend,
            self._prompts.version,
            tally.model,
            tally.usage,
            failures[0] if failures else None,
        )

    async def _part(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> tuple[list[Answer], Retryable | None]:
        try:
            return await self._asking.ask(rendered, questions, deadline, tally), None
        except Retryable as error:
            return unknown(UNASKED, len(questions)), error


async def together(calls: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """The results of all, run at once. The first error ends the others and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def completed(server: Server, body: Body, estimate: int, deadline: float, tally: Tally) -> chat.Completion | None:
    """A chat completion; None where the server rejects this request. Raises as Client.post does, and Malformed."""
    reply = await server.client.post(chat.PATH, body, estimate, deadline, tally)
    if reply.rejected:
        log.warning("%s", reply.rejected)
        return None
    return chat.completion(reply.body)


def _warn(error: Malformed) -> None:
    log.warning("an answer of the language model is not of its endpoint's shape: %s", error)
