"""The interface of the judge: what it is asked, what it answers, and who lets its calls out."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Retryable
from tagbus.stream.recall.knowledge import Segment

# How a judge asks: the decision endpoint of the server, one yes/no call per tag, one JSON answer with stated scores, or
# one with names whose tokens' likelihood counts.
Backend = Literal["decision_api", "yesno", "stated", "tokens"]


@dataclass(frozen=True, slots=True)
class Question:
    """A tag to judge: its name and description as the content's language shows them."""

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
    where unknown. `deadline` is on time.monotonic(): no call goes out after it, and none is waited for beyond it.
    """

    content: Content
    questions: Sequence[Question]
    shots: Sequence[Shot] = ()
    knowledge: Sequence[Segment] = ()
    language: str | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The judgement of one tag: the probability that it is right, 0 to 1, or None and in `unknown` a short word why."""

    probability: float | None = None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls took. `calls` counts every attempt, `cached` the tokens of `tokens_in` that a server had cached."""

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

    `backend` asked, None before one was found; `prompt` is the version of its template; `model` is what the answers
    report, None without any. `failure` is the error that ended the asking: what it left unasked is unknown, and what
    was answered before it stands. `asked_in` holds the indices of the questions as they were shown, where that was
    another order. `cost` in USD, where it is not that of single calls.
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
        """One result for each, in order. A server that does not answer in time is a `failure` of a result.

        Raises UserError where the server refuses the key, the model or the address: no later call would do better.
        """

    async def close(self) -> None:
        """Close connections. Calls in flight are cancelled."""


class Charge(Protocol):
    """One attempt that was let out."""

    def settle(self, usage: Usage) -> None:
        """What the answer says that it took. Without this, what was reserved counts as spent."""


class Meter(Protocol):
    """Lets attempts out: budget, rates, breaker. Requests in flight are the client's to bound.

    The client wraps every attempt: `async with meter.attempt(estimate, deadline) as charge`. An error of the attempt
    leaves through the block, so that a breaker sees it.
    """

    def attempt(self, estimate: Usage, deadline: float | None) -> AbstractAsyncContextManager[Charge]:
        """Reserve `estimate` before the attempt and hold it until it is settled.

        `deadline` is on time.monotonic(). Entering raises Withheld if the attempt may not go out before that.
        """
