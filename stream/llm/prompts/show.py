"""The prompts of a content as sent, with upper estimates of their tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

from tagbus.stream.config import LlmSettings
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Asked
from tagbus.stream.llm.judge import TEMPLATE
from tagbus.stream.llm.profile import profile
from tagbus.stream.llm.prompts import Prompts, tokens
from tagbus.stream.llm.prompts.order import in_requests, shuffled


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the prompts: its kind and its text."""

    name: str
    text: str

    @property
    def tokens(self) -> int:
        """An upper estimate."""
        return tokens(self.text)


@dataclass(frozen=True, slots=True)
class Shown:
    """All prompts of one content: the parts that its requests share, then each one's own."""

    shared: tuple[Part, ...]
    questions: tuple[Part, ...]
    cut: tuple[str, ...]

    @property
    def longest(self) -> int:
        """An upper estimate of the longest prompt's tokens."""
        return (
            sum(one.tokens for one in self.shared) + max((one.tokens for one in self.questions), default=0) + TEMPLATE
        )


def shown(asked: Asked, prompts: Prompts, settings: LlmSettings) -> Shown:
    """The prompts of the configured backend; `auto` is shown as `decision_api`, the first that is tried."""
    questions = tuple(_questions(asked, prompts, settings))
    rendered = prompts.render(asked, max(map(tokens, _longest(asked, prompts, settings)), default=0) + TEMPLATE)
    return Shown((Part("task", rendered.task), Part("content", rendered.context)), questions, rendered.cut)


def _questions(asked: Asked, prompts: Prompts, settings: LlmSettings) -> Iterator[Part]:
    step, order = len(chat.LABELS), shuffled(asked)
    if settings.select == "tokens":
        for part in in_requests(order, order, step):
            yield Part("tokens", prompts.named([asked.questions[at] for at in part]))
        return
    if settings.select == "labels":
        for start in range(0, len(order), step):
            some = [asked.questions[at] for at in order[start : start + step]]
            yield Part("select", prompts.select(chat.LABELS[: len(some)], some))
    match settings.backend:
        case "stated":
            for part in in_requests(order, order, step):
                some = [asked.questions[at] for at in part]
                yield Part("stated", prompts.stated(chat.LABELS[: len(some)], some))
        case "yesno":
            for one in asked.questions:
                yield Part(f"yesno {one.tag_id}", prompts.yes_no(one))
        case _:
            for part in in_requests(order, order, profile(settings.profile).questions):
                for one in (asked.questions[at] for at in part):
                    yield Part(f"decision_api {one.tag_id}", prompts.question(one))


def _longest(asked: Asked, prompts: Prompts, settings: LlmSettings) -> Iterator[str]:
    """The questions that the content's part leaves room for: those of `Asking.beside`."""
    listed = prompts.longest(asked.questions, len(chat.LABELS))
    labels = chat.LABELS[: len(listed)]
    if settings.select == "tokens":
        yield prompts.named(listed)
        return
    if settings.select == "labels":
        yield prompts.select(labels, listed)
    match settings.backend:
        case "stated":
            yield prompts.stated(labels, listed)
        case "yesno":
            yield from map(prompts.yes_no, asked.questions)
        case _:
            yield from map(prompts.question, asked.questions)
