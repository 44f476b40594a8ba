"""The judge interface: questions, answers, and the meter that admits its calls."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Retryable
from tagbus.stream.recall.knowledge import Segment

# The judge's backends: the decision endpoint of the server, one yes/no call per tag, one JSON answer with stated
# scores, or one with names scored by their tokens' likelihood.
Backend = Literal["decision_api", "yesno", "stated", "tokens"]


@dataclass(frozen=True, slots=True)
class Question:
    """A tag to judge: its name and description in the content's language."""

    tag_id: str
    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Shot:
    """An exemplar as the prompt shows it. `accepted` and `rejected` are names of tags."""

    title: str
    text: str
    accepted: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """One content and the tags to judge for it, best candidate first.

    `shots` and `knowledge` come from memory, in the content's scopes, most similar first. `language` is BCP 47, None
    where unknown. `deadline` is on time.monotonic(): no call is sent or awaited after it.
    """

    content: Content
    questions: Sequence[Question]
    shots: Sequence[Shot] = ()
    knowledge: Sequence[Segment] = ()
    language: str | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The judgement of one tag: the probability that it is right, 0 to 1, or None and the reason in `unknown`, a short
    word."""

    probability: float | None = None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of calls. `calls` counts every attempt, `cached` the tokens of `tokens_in` that a server had cached."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.cached + other.cached,
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """A content's answers, one per question and in their order.

    `backend` asked, None before one was found; `prompt` is the version of its template; `model` is the one that the
    answers report, None without any. `failure` is the error that ended the asking: unasked questions are unknown,
    earlier answers stand. `asked_in` holds the indices of the questions in the order shown: in the selection, if there
    is one; None: unknown. `cost` in USD, where it is not that of single calls.
    """

    answers: tuple[Answer, ...]
    backend: Backend | None
    prompt: str
    model: str | None = None
    usage: Usage = Usage()
    failure: Retryable | None = None
    asked_in: tuple[int, ...] | None = None
    cost: float | None = None


class Judge(Protocol):
    """Judges tags by a language model."""

    async def judge(self, asked: Sequence[Asked]) -> list[Judged]:
        """One result per content, in order. A server that does not answer in time is a `failure` of a result.

        Raises UserError if the server refuses the key, the model or the address: no later call would succeed.
        """

    async def close(self) -> None:
        """Close connections. Calls in flight are cancelled."""


class Charge(Protocol):
    """One admitted attempt."""

    def settle(self, usage: Usage) -> None:
        """Settle with the usage that the answer reports. Without this, the reservation counts as spent."""


class Meter(Protocol):
    """Admits attempts: budget, rates, breaker. The client bounds the requests in flight.

    The client wraps every attempt: `async with meter.attempt(estimate, deadline) as charge`. An error of the attempt
    passes through the block, so that a breaker sees it.
    """

    def attempt(self, estimate: Usage, deadline: float | None) -> AbstractAsyncContextManager[Charge]:
        """Reserve `estimate` before the attempt and hold it until it is settled.

        `deadline` is on time.monotonic(). Entering raises Withheld if the attempt may not be sent before that.
        """
