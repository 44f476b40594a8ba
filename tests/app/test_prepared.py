"""Batch answers: the stage `judge` uses them without asking again, and bills them at the batch price."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import Plan, TaggingStack
from tagbus.stream.app.judge import judging
from tagbus.stream.app.judge.batch import _stage
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.config import CascadeSettings, Settings
from tagbus.stream.contract.events import Content, Degraded
from tagbus.stream.contract.events import Usage as Cost
from tagbus.stream.llm.batch.answers import JUDGED, Given, Offered, digest_of, header
from tagbus.stream.tagger.tagger import Explained
from tests.app.judged import ANYTHING, BEFORE, CLOSING, TAGS, Told, best, settings_of, tagged
from tests.bus.process.test_tag_processor import batch
from tests.bus.taggers import Trivial


@asynccontextmanager
async def stack_with(
    judge: Told, offered: Offered, monkeypatch: pytest.MonkeyPatch, given: Settings | None = None
) -> AsyncIterator[TaggingStack]:
    monkeypatch.setattr(judging, "_open", lambda *_: judge)
    plan = Plan(given=judging.Given(prepared=offered))
    async with assemble.in_process(given or settings_of(), plan=plan) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS}, lambda _: None)
        yield stack


def answered(stack: TaggingStack, content: Content, **given: object) -> Given:
    digest = digest_of(stack.components.versions["judge"], content)
    return Given(digest=digest, **{"prompt": "v1", "model": "m-1", "calls": 2, "tokens_in": 300, "cost": 0.25, **given})


async def test_answers_of_a_batch_count_as_the_judges_and_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, offered = Told(lambda *_: 0.5), Offered("k")
    async with stack_with(judge, offered, monkeypatch) as stack:
        given = answered(stack, ANYTHING, answers={"hives": 0.9, "honey": 0.6, "bees": 0.1, "gone": 0.99})
        offered.offer(header(given, "k"))
        (one,) = await tagged(stack)
    assert judge.asked == []
    assert best(one)[:2] == ["hives", "honey"]
    assert "gone" not in best(one)
    assert one.path == (*BEFORE, "judge", *CLOSING)
    assert one.usage == Cost(calls=2, tokens_in=300, tokens_out=0, cost=0.25, currency="USD")
    assert (one.versions.prompt, one.versions.llm) == ("v1", "m-1")


@pytest.mark.parametrize("reason", ["batch", "budget"])
async def test_what_a_batch_did_not_answer_goes_out_degraded(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, offered = Told(lambda *_: 0.5), Offered("k")
    async with stack_with(judge, offered, monkeypatch) as stack:
        offered.offer(header(answered(stack, ANYTHING, calls=0, cost=None, failure=reason), "k"))
        (one,) = await tagged(stack)
    assert judge.asked == []
    assert one.degraded == (Degraded(stage="judge", reason=reason),)
    assert one.tags
    assert one.usage is None


async def test_other_contents_and_forged_answers_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, offered = Told(lambda *_: 0.5), Offered("k")
    async with stack_with(judge, offered, monkeypatch) as stack:
        given = answered(stack, ANYTHING, answers={"hives": 0.9})
        offered.offer(header(given, "another key"))
        await tagged(stack)
        offered.offer(header(given, "k"))
        await tagged(stack, ANYTHING.model_copy(update={"title": "bees, honey and hives, changed"}))
    assert len(judge.asked) == 2


async def test_a_batch_asks_what_the_stage_would_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, contents = Told(lambda *_: 0.5), [ANYTHING.model_copy(update={"id": f"c{n}"}) for n in range(40)]
    given = settings_of(cascade=CascadeSettings(control=0.3))
    async with stack_with(judge, Offered("k"), monkeypatch, given) as stack:
        tagger = stack.tagger()
        stage, before = _stage(tagger)
        found = await tagger.explain(contents, until=before)
        works = [one.work for one in found if isinstance(one, Explained)]
        prepared = await stage.to_prepare(works)
        assert judge.asked == []
        await tagger.tag(contents)
    assert before == BEFORE[-1]
    assert [one.content.id for one in judge.asked] == [one.content.id for one in prepared if one is not None]
    assert [one.questions for one in judge.asked] == [one.questions for one in prepared if one is not None]
    assert 0 < len(judge.asked) < 40


async def test_the_bus_hands_over_the_header_of_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[bytes | None] = []
    values: Sequence[bytes] = [b'{"id": "a", "title": "A"}', b'{"id": "b", "title": "B"}', b"{"]
    given = batch(values)
    for place, source in enumerate(given.sources):
        object.__setattr__(source.record, "headers", ((JUDGED, b"signed %d" % place),) * (place != 1))
    await TagProcessor(Settings(), Trivial(), offered=came.append).process(given, lambda _: None)
    # What is a dead letter hands over nothing.
    assert came == [b"signed 0"]
