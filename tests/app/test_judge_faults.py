"""What the server of the judge does wrong, through the tagger and over HTTP: never a lost content, never a tag that was
no candidate, always a stated path."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.config import BudgetSettings, CascadeSettings, LlmSettings, RecallSettings, RetrySettings, Settings
from tagbus.stream.contract.events import Content, TaggedContent
from tests.app.judged import BEFORE, CLOSING, WORDS, best, curve, filled, tagged
from tests.llm import answers
from tests.llm.answers import completion
from tests.llm.hostile import CONTENTS
from tests.llm.scripted import Request, Say, Script, Server, routed, serving

WELL = routed(decisions=answers.vllm_decisions(), completions=answers.chat(), models=answers.models("test-model"))
SECONDS = 120
# The deadline of a content where a server wastes all of it.
SOON = 1.0
NO_ANSWER = {"dependency", "deadline"}
DECISIONS, YES_NO, STATED = "decision_api", "yesno", "stated"


@dataclass
class Turning:
    """A server that does as it should until it is told otherwise."""

    script: Script = field(default=WELL)

    def __call__(self, request: Request) -> Say:
        return self.script(request)


@asynccontextmanager
async def judged_by(
    backend: str, seconds: float = SECONDS, budget: BudgetSettings | None = None, **llm: Any
) -> AsyncIterator[tuple[TaggingStack, Turning, Server]]:
    """A tagger whose judge counts and has found out how the server is asked."""
    turning = Turning()
    with serving(turning) as server:
        settings = Settings(
            llm=LlmSettings(
                url=server.url, model="test-model", profile="vllm", backend=backend, candidates=4,
                deadline_seconds=seconds, watch_seconds=0, **llm,
            ),
            retry=RetrySettings(first_seconds=0.05, cap_seconds=0.1),
            budget=budget or BudgetSettings(breaker_failures=1000, price_in=0.0),
            cascade=CascadeSettings(control=0.0),
            # Every tag is a candidate, whatever number is in the title.
            recall=RecallSettings(c2t_threshold=-1.0),
        )  # fmt: skip
        async with filled(settings) as stack:
            until = time.monotonic() + SECONDS
            while "judge" not in (await tagged(stack, *contents(1)))[0].path:
                assert time.monotonic() < until
            yield stack, turning, server


def contents(count: int) -> list[Content]:
    """Each is another question, and the tags are candidates of all."""
    stamp = time.monotonic_ns()
    return [
        Content(id=f"c{stamp}-{number}", title=f"bees, honey and hives {stamp} {number}") for number in range(count)
    ]


def always(body: object, status: int = 200, **given: Any) -> Script:
    return lambda _: Say(body, status, **given)


def tops(*pairs: tuple[str, float]) -> Script:
    return always(completion("Yes", pairs))


def decided(*found: dict[str, object]) -> Script:
    return always({"model": "m", "answers": list(found), "usage": {"input_tokens": 1}})


def predicate(name: str, probability: float) -> dict[str, object]:
    return {"type": "predicate", "name": name, "probability": probability}


def another_contract(request: Request) -> Say:
    """SGLang's answer to what the first look found to be OpenAI's."""
    asked = [
        {"id": one["name"], "type": "yes_no", "question": one["instructions"]} for one in request.body["questions"]
    ]
    return answers.sglang_decisions()(Request("POST", request.path, {}, {"input": "", "questions": asked}))


NO_TOKENS = {**completion("Yes"), "choices": [{"message": {"content": "Yes"}, "logprobs": {"content": []}}]}
# How it is asked, what it does, and why its contents go out without it.
FAULTS: dict[str, tuple[str, Script, set[str]]] = {
    "slow": (DECISIONS, always({}, silent=True), NO_ANSWER),
    "trickling": (DECISIONS, always(b" " * 1000, trickle=0.05), NO_ANSWER),
    "429": (DECISIONS, always({"error": "slow down"}, 429), NO_ANSWER),
    "429 with Retry-After": (DECISIONS, always({}, 429, headers={"retry-after": "3600"}), {*NO_ANSWER, "breaker"}),
    "500": (DECISIONS, always({"error": "broken"}, 500), NO_ANSWER),
    "cut in mid-answer": (DECISIONS, always({"answers": [{"type": "predicate"}]}, cut=20), NO_ANSWER),
    "malformed JSON": (DECISIONS, always(b"<html>busy</html>"), {"unknown"}),
    "truncated JSON": (DECISIONS, always(b'{"model": "m", "answers": [{"type": "pre'), {"unknown"}),
    "truncated JSON in a message": (STATED, always(completion('{"A": 90, "B"')), {"unknown"}),
    "ids outside the candidates": (DECISIONS, decided(predicate("secret", 1.0), predicate("q9", 1.0)), {"unknown"}),
    "labels outside the candidates": (STATED, always(completion('{"Z": 100, "secret": 100}')), {"unknown"}),
    "empty choice": (YES_NO, always({"choices": []}), {"unknown"}),
    "empty decision": (DECISIONS, decided(), {"unknown"}),
    "logprobs missing": (YES_NO, always(completion("Yes")), {"unknown"}),
    "logprobs empty": (YES_NO, always(NO_TOKENS), {"unknown"}),
    "alternatives empty": (YES_NO, tops(), {"unknown"}),
    "logprobs 0.0": (YES_NO, tops(("Yes", 0.0), ("No", 0.0)), {"unknown"}),
    "neither Yes nor No on top": (YES_NO, tops(("The", -0.1), ("I", -3.0)), {"unknown"}),
    "a constraint ignored": (STATED, always(completion("Sure! The tags are bees and honey.")), {"unknown"}),
    "refusal of all": (YES_NO, always(completion("", refusal="I cannot help with that")), {"unknown"}),
    "another contract on the same path": (DECISIONS, another_contract, {"unknown"}),
    "the path is gone": (DECISIONS, always({"error": "not found"}, 404), {"refused"}),
    "a wrong key": (DECISIONS, always({"error": "Incorrect API key"}, 401), {"refused"}),
    "too long for it": (DECISIONS, always({"error": "too long"}, 413), {"unknown"}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_contents_go_out_from_the_stage_before_with_the_reason(fault: str) -> None:
    backend, script, reasons = FAULTS[fault]
    async with judged_by(backend, SOON if reasons == NO_ANSWER else SECONDS) as (stack, server, _):
        server.script = script
        given = contents(3)
        found = await tagged(stack, *given)
        before = await stack.tagger([curve(stack)]).tag(given, until="rank")
    assert [one.id for one in found] == [one.id for one in given]
    for one, earlier in zip(found, before, strict=True):
        assert isinstance(earlier, TaggedContent)
        assert one.path == (*BEFORE, *CLOSING)
        assert [skipped.stage for skipped in one.degraded] == ["judge"]
        assert {skipped.reason for skipped in one.degraded} <= reasons
        assert one.tags == earlier.tags
        assert set(best(one)) <= set(WORDS)


async def judged_once(backend: str, script: Script, **llm: Any) -> TaggedContent:
    async with judged_by(backend, **llm) as (stack, server, _):
        server.script = script
        (one,) = await tagged(stack, *contents(1))
    assert one.path == (*BEFORE, "judge", *CLOSING)
    assert one.degraded == ()
    assert set(best(one)) <= set(WORDS)
    return one


@pytest.mark.parametrize("backend", [DECISIONS, YES_NO, STATED])
async def test_a_result_says_how_the_model_was_asked(backend: str) -> None:
    one = await judged_once(backend, WELL)
    assert one.versions.backend == backend


async def test_a_refusal_of_one_question_leaves_the_others_theirs() -> None:
    one = await judged_once(
        DECISIONS, decided({"type": "refusal", "name": "q0"}, *(predicate(f"q{n}", 0.9) for n in (1, 2, 3)))
    )
    assert len([tag for tag in one.tags if tag.evidence.scores.get("judge") == 0.9]) == 3


async def test_an_answer_outside_the_candidates_beside_right_ones_is_dropped() -> None:
    one = await judged_once(
        DECISIONS, decided(*(predicate(f"q{n}", 0.2) for n in range(4)), predicate("secret", 1.0), predicate("q4", 1.0))
    )
    assert [tag.evidence.scores["judge"] for tag in one.tags if "judge" in tag.evidence.scores] == [0.2] * 4


async def test_a_selection_outside_the_candidates_selects_nothing_in() -> None:
    async with judged_by(DECISIONS, select="labels") as (stack, server, _):
        server.script = routed(
            decisions=answers.vllm_decisions(), completions=Say(completion('{"tags": ["Z", "secret", 3]}'))
        )
        (one,) = await tagged(stack, *contents(1))
    # It is a selection of none, and counted as outside.
    assert one.degraded == ()
    assert "judge" not in one.path
    assert set(best(one)) <= set(WORDS)


async def test_beyond_the_budget_nothing_is_sent_and_nothing_lost() -> None:
    # The look at the server is not metered; the first content is.
    async with judged_by(DECISIONS, budget=BudgetSettings(tokens_per_day=2000, price_in=0.0)) as (stack, _, server):
        found = await tagged(stack, *contents(30))
        sent = len(server.requests)
        again = await tagged(stack, *contents(5))
        assert len(server.requests) == sent
    assert len(found) == 30
    spent = [one for one in (*found, *again) if one.degraded]
    assert len(spent) > 5
    assert {skipped.reason for one in spent for skipped in one.degraded} == {"budget"}
    assert all(best(one) for one in spent)


async def test_the_breaker_opens_and_one_request_is_tried_before_it_closes() -> None:
    budget = BudgetSettings(breaker_failures=2, breaker_seconds=0.2, price_in=0.0)
    async with judged_by(DECISIONS, budget=budget, in_flight=1) as (stack, turning, server):

        async def until(tried: Callable[[TaggedContent], bool]) -> TaggedContent:
            end = time.monotonic() + SECONDS
            while True:
                (one,) = await tagged(stack, *contents(1))
                if tried(one):
                    return one
                assert time.monotonic() < end

        def reasons(one: TaggedContent) -> list[str]:
            return [skipped.reason for skipped in one.degraded]

        turning.script = always({"error": "broken"}, 500)
        opened = await until(lambda one: reasons(one) == ["breaker"])
        assert set(best(opened)) <= set(WORDS)
        # While it is down, a request every 0.2 s is all that it gets.
        sent, since = len(server.requests), time.monotonic()
        await until(lambda _: len(server.requests) >= sent + 3)
        assert time.monotonic() - since >= 2 * 0.2
        turning.script = WELL
        closed = await until(lambda one: "judge" in one.path)
        assert closed.degraded == ()
        assert all("judge" in one.path for one in await tagged(stack, *contents(5)))


async def test_200_hostile_contents_are_asked_about_and_get_no_tag_that_was_no_candidate() -> None:
    async with judged_by(DECISIONS) as (stack, _, server):
        given = [
            one.model_copy(update={"title": f"{one.title} {title}", "text": text})
            for one, (title, text) in zip(contents(len(CONTENTS)), CONTENTS, strict=True)
        ]
        found = await tagged(stack, *given)
        asked = server.to("/decisions")[-190:]
    assert len(found) == len(CONTENTS) >= 200
    assert [one.id for one in found] == [one.id for one in given]
    assert {tag for one in found for tag in best(one)} <= set(WORDS)
    assert [one.degraded for one in found] == [()] * len(found)
    # Of some the title is so little of the text that no tag is near.
    assert all(("judge" in one.path) == bool(one.tags) for one in found)
    assert len([one for one in found if one.tags]) > 190
    # Four questions each at most, about names of the taxonomy alone.
    assert max(len(one.body["questions"]) for one in asked) == 4
    assert all(
        any(f'"{word}"' in question["instructions"] for word in WORDS)
        for one in asked
        for question in one.body["questions"]
    )


@pytest.mark.parametrize("character", ["a", "漢", "<", "\u200b"])
async def test_a_megabyte_of_one_character_is_a_content_like_any_other(character: str) -> None:
    async with judged_by(DECISIONS) as (stack, _, server):
        (given,) = contents(1)
        asked = len(server.requests)
        long = given.model_copy(update={"text": (character * 1_000_000)[: 1_000_000 // len(character.encode())]})
        (one,) = await tagged(stack, long)
        sent = server.requests[asked:]
    assert one.degraded == ()
    assert set(best(one)) <= set(WORDS)
    assert ("judge" in one.path) == bool(one.tags) == (len(sent) == 1)
    assert all(len(request.raw) < 20_000 for request in sent)
