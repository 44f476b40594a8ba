"""Probe for features that a server silently ignores: one named check for each, for `tagbus check`.

It makes a handful of real calls. Readiness makes none of them: a paid model is never probed for availability.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

from tagbus.stream.config import LlmSettings, RetrySettings
from tagbus.stream.errors import Retryable, UserError
from tagbus.stream.llm import chat
from tagbus.stream.llm.base import Answer
from tagbus.stream.llm.choose import KNOWN, RIGHT, answers, choose, listed
from tagbus.stream.llm.client import Tally, Unlimited
from tagbus.stream.llm.judge import Asking, Decisions, Server, YesNo, completed, request_of
from tagbus.stream.llm.likelihood import require_canonical
from tagbus.stream.llm.open import LOOK_SECONDS, connected, prompts_of
from tagbus.stream.llm.prompts import YES_NO, Prompts, tokens
from tagbus.stream.llm.shapes import LABEL_MASS, Malformed

# How much two orders of the same words, or of the same tags, may move a probability.
_ORDER: Final = 0.2
# An answer that no model gives unprompted.
_FORCED: Final = "K"
_QUESTION: Final = "Which city is the capital of France? Answer in one sentence."


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `unsure`: it works, or may work, less well than it should."""

    verdict: Literal["ok", "wrong", "unsure"]
    name: str
    words: str


async def examine(settings: LlmSettings, retry: RetrySettings, fitted: str | None = None) -> list[Check]:
    """Run all checks, as far as the server answers. Server faults are results, never raised. `fitted`: the backend that
    the calibration is fitted to, if it is known."""
    server = connected(settings, retry, Unlimited())
    found: list[Check] = []
    try:
        async with aclosing(_checks(settings, server, prompts_of(settings), fitted)) as checks:
            async for check in checks:
                found.append(check)  # noqa: PERF401 - what was found before an error stays
    except (UserError, Retryable) as error:
        found.append(Check("wrong", "server", str(error)))
    finally:
        await server.client.close()
    return found


async def _checks(
    settings: LlmSettings, server: Server, prompts: Prompts, fitted: str | None
) -> AsyncGenerator[Check, None]:
    if not server.profile.verified:
        words = f"{server.profile.name} is unverified: it never ran here against the real server"
        yield Check("unsure", "profile", f"{words} ({server.profile.source})")
    models = await listed(server, _deadline())
    yield _model(settings, models)
    if server.model is None:
        server = replace(server, model=models[0] if models else None)
    try:
        choice = await choose(server, prompts, settings, _deadline())
    except UserError:
        async for check in _instead(server, prompts, settings):
            yield check
        raise
    passed = f"; {'; '.join(choice.passed)}" if choice.passed else ""
    yield Check("ok", "backend", f"{choice.asking.backend}{passed}")
    backend = "tokens" if settings.select == "tokens" else choice.asking.backend
    if fitted is not None and fitted != backend:
        words = f"it is fitted to {fitted}, so answers of {backend} change nothing"
        yield Check("unsure", "calibration", f"{words}: set TAGBUS_LLM__BACKEND={fitted}, or fit it again")
    if isinstance(choice.asking, Decisions) and not choice.asking.contract.massed:
        words = f"{choice.asking.contract.path} reports none, so TAGBUS_LLM__LABEL_MASS has no effect"
        yield Check("unsure", "label mass", f"{words}: a model that would say neither yes nor no goes unnoticed")
    tally = Tally()
    right, wrong = await answers(choice.asking, prompts, _deadline(), tally)
    yield _known("known yes", right, higher=right, lower=wrong)
    yield _known("known no", wrong, higher=right, lower=wrong)
    if tally.model and server.model and tally.model != server.model:
        words = f"the answers report {tally.model} where {server.model} was asked"
        yield Check("unsure", "model", f"{words}: a calibration belongs to what is reported")
    if choice.asking.backend == "yesno":
        yield _cached(server, tally)
        yield await _logprobs(server, prompts)
        yield await _orders(choice.asking, server, prompts)
    if choice.asking.at_once > 1:
        yield await _places(choice.asking, prompts, right)
    if choice.asking.backend == "stated":
        async for check in _instead(server, prompts, settings):
            yield replace(check, verdict="unsure")
    if choice.asking.backend == "stated" or settings.select != "off":
        yield await _constraint(server, prompts)
    if settings.select == "tokens":
        await require_canonical(server, prompts.render(KNOWN, 200), _deadline())
        yield Check("ok", "select", "names are written in the same tokens with a constraint and without")


def _model(settings: LlmSettings, models: list[str]) -> Check:
    if not models:
        return Check("unsure", "model", "the server lists no models, so the name cannot be checked")
    if settings.model is None:
        return Check("ok", "model", f"{models[0]}, the first that the server lists")
    if settings.model not in models:
        known = ", ".join(models[:5])
        words = f"TAGBUS_LLM__MODEL={settings.model} is not listed, and some servers then answer with another"
        return Check("wrong", "model", f"{words}; expected one of {known}")
    return Check("ok", "model", settings.model)


def _known(name: str, answer: Answer, *, higher: Answer, lower: Answer) -> Check:
    if answer.probability is None:
        return Check("wrong", name, f"unknown: {answer.unknown}")
    if higher.probability is not None and lower.probability is not None and higher.probability <= lower.probability:
        words = (
            f"{RIGHT.name} {higher.probability:.2f} is no more than {KNOWN.questions[1].name} {lower.probability:.2f}"
        )
        return Check("unsure", name, f"for a text about cats {words}: this model judges no better than chance")
    return Check("ok", name, f"{answer.probability:.2f}")


def _cached(server: Server, tally: Tally) -> Check:
    if tally.usage.cached:
        share = tally.usage.cached / max(1, tally.usage.tokens_in)
        return Check("ok", "prefix reuse", f"{share:.0%} of the tokens of two questions about one content were cached")
    words = f"no cached tokens are reported ({server.profile.cached_tokens}): each tag pays for the whole content"
    return Check("unsure", "prefix reuse", words)


async def _instead(server: Server, prompts: Prompts, settings: LlmSettings) -> AsyncGenerator[Check, None]:
    """What a server returns instead of the probability of yes, if it was found not to return that."""
    if server.profile.logprobs == "none" or settings.backend not in ("auto", "yesno"):
        return
    # It may serve no chat completions at all, or answer nonsense: that is reported already.
    with suppress(UserError, Retryable, Malformed):
        check = await _logprobs(server, prompts)
        if check.verdict != "ok":
            yield check


async def _logprobs(server: Server, prompts: Prompts) -> Check:
    rendered = prompts.render(KNOWN, 200)
    question = prompts.yes_no(RIGHT)
    body = chat.one_token(server.profile, server.model, rendered, question, server.adapter)
    answer = await completed(server, request_of(server, body, rendered.tokens + tokens(question)), _deadline(), Tally())
    if answer is None or not answer.tokens:
        return Check("wrong", "logprobs", "no token probabilities are returned, so the share of yes is unknown")
    first = answer.tokens[0]
    count = len(first.top_logprobs)
    if count < 2:
        words = f"alternatives of a token: {count} came, {server.profile.top_logprobs} were asked for"
        return Check("wrong", "logprobs", f"{words}: the share of yes among both cannot be told")
    found = chat.yes_no(answer, YES_NO, server.label_mass)
    if found.unknown == LABEL_MASS:
        words = f"{first.token!r} and not yes or no comes first: the model, or its template, begins otherwise"
        return Check("wrong", "first token", words)
    return Check("ok", "logprobs", f"{count} alternatives of a token, {first.token!r} first")


async def _orders(asking: Asking, server: Server, prompts: Prompts) -> Check:
    (one, *_) = await answers(asking, prompts, _deadline(), Tally())
    (other, *_) = await answers(YesNo(server, prompts, tuple(reversed(YES_NO))), prompts, _deadline(), Tally())
    if one.probability is None or other.probability is None:
        return Check("unsure", "two orders", f"unknown: {one.unknown or other.unknown}")
    said = f"{one.probability:.2f} for yes or no, {other.probability:.2f} for no or yes"
    if abs(one.probability - other.probability) > _ORDER:
        return Check("unsure", "two orders", f"{said}: the order of the words decides more than the content")
    return Check("ok", "two orders", said)


async def _places(asking: Asking, prompts: Prompts, first: Answer) -> Check:
    """`first`: the answer about the right tag, shown before the wrong one."""
    turned = replace(KNOWN, questions=tuple(reversed(KNOWN.questions)))
    (*_, second) = await answers(asking, prompts, _deadline(), Tally(), turned)
    if first.probability is None or second.probability is None:
        return Check("unsure", "two orders", f"unknown: {first.unknown or second.unknown}")
    said = f"{RIGHT.name} {first.probability:.2f} as the first tag of a request, {second.probability:.2f} as the second"
    if abs(first.probability - second.probability) > _ORDER:
        return Check("unsure", "two orders", f"{said}: its place decides more than the content")
    return Check("ok", "two orders", said)


async def _constraint(server: Server, prompts: Prompts) -> Check:
    if server.profile.constraint == "none":
        return Check(
            "unsure", "constraint", f"profile {server.profile.name} has none: answers are only asked to be JSON"
        )
    rendered = prompts.render(KNOWN, 200)
    schema = chat.select_schema([_FORCED])
    body = chat.by_schema(server.profile, server.model, rendered, _QUESTION, schema, 1, server.adapter)
    answer = await completed(
        server, request_of(server, body, rendered.tokens + tokens(_QUESTION)), _deadline(), Tally()
    )
    try:
        if answer is None:
            return Check("wrong", "constraint", "the server rejects response_format with a JSON schema")
        chat.selected(answer, [_FORCED])
    except Malformed:
        said = "its answer ends too early" if answer and answer.truncated else "the model's answer is free-form"
        return Check("wrong", "constraint", f"the JSON schema of response_format is ignored: {said}")
    return Check("ok", "constraint", "the JSON schema of response_format is obeyed")


def _deadline() -> float:
    return time.monotonic() + LOOK_SECONDS
