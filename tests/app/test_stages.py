"""A custom stage: a class in one file and one line of the plan. What a stage may do is in tests/tagger."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import Plan, TaggingStack
from tagbus.stream.app.stages import STAGES, Ingredients
from tagbus.stream.calibrate import Calibration, fit
from tagbus.stream.config import KnowledgeSettings, Settings
from tagbus.stream.contract.events import Content, Degraded, Knowledge, Tag, TaggedContent
from tagbus.stream.errors import DependencyDown, FieldError, Untaggable
from tagbus.stream.recall.component import ComponentOf, ComponentSettings, Part, Surroundings
from tagbus.stream.tagger import Delayed, Explained, Failure, Work

TAGS = [Tag(id="bees", name="beekeeping"), Tag(id="law", name="law of the sea"), Tag(id="cars", name="electric cars")]
CLOSING = ("select", "calibrate")
RECALLED = ("prepare", "encode", "recall", "rank")


class Toy:
    """Waits once for one content, refuses another, and does not read a third."""

    name = "toy"

    def __init__(self) -> None:
        self.given: list[str] = []

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        for work in works:
            match work.content.id:
                case "slow" if "slow" not in self.given:
                    work.delay(0.01, "busy")
                case "bad":
                    work.fail(Untaggable(self.name, (FieldError("text", "'...'", "another"),)))
                case "long":
                    work.skip(self.name, "too_long")
            self.given.append(work.content.id)


class Away:
    """Its service does not answer."""

    name = "away"

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        raise DependencyDown(f"no answer for {len(works)}")


def toy(_: Ingredients) -> Toy:
    return Toy()


PLAN = Plan(stages=(*STAGES, toy))


@pytest.fixture
async def stack() -> AsyncIterator[TaggingStack]:
    async with assemble.in_process(Settings.model_construct(), plan=PLAN) as made:
        await filling.fill(made.projection(), {"tags": TAGS, "exemplars": []}, lambda _: None)
        yield made


def given_to(stack: TaggingStack) -> list[str]:
    """The ids of the contents that the stage was given."""
    (made,) = (stage for stage in stack.stages if isinstance(stage, Toy))
    return made.given


def contents(*ids: str) -> list[Content]:
    return [Content(id=one, title=f"{one}: hives and honey on city roofs") for one in ids]


def curve(stack: TaggingStack, path: str, share: int) -> Calibration:
    """Fitted to scores of that path, of which one in `share` is right."""
    return fit(np.linspace(0, 1, 200), np.arange(200) % share == 0, stack.fingerprint(path), 20)


async def test_it_acts_on_single_contents_and_their_neighbours_are_as_without_it(stack: TaggingStack) -> None:
    asked = contents("first", "slow", "bad", "long", "last")
    first, slow, bad, long, last = await stack.tagger().tag(asked)
    assert slow == Delayed("slow", 0.01, "busy")
    assert isinstance(bad, Failure)
    assert bad.error.stage == "toy"
    assert isinstance(long, TaggedContent)
    assert long.degraded == (Degraded(stage="toy", reason="too_long"),)

    without = await stack.tagger().tag(asked, until="rank")
    for index, one in ((0, first), (4, last)):
        expected = without[index]
        assert isinstance(one, TaggedContent)
        assert isinstance(expected, TaggedContent)
        assert [(tag.id, tag.score) for tag in one.tags] == [(tag.id, tag.score) for tag in expected.tags]
        assert one.degraded == ()


async def test_its_name_is_in_the_path_of_those_that_it_took(stack: TaggingStack) -> None:
    first, long = await stack.tagger().tag(contents("first", "long"))
    assert isinstance(first, TaggedContent)
    assert isinstance(long, TaggedContent)
    assert first.path == (*RECALLED, "toy", *CLOSING)
    assert long.path == (*RECALLED, *CLOSING)


async def test_what_it_delays_comes_again_alone(stack: TaggingStack) -> None:
    first, slow = await stack.tagger().explain_all(contents("first", "slow"))
    assert isinstance(first, Explained)
    assert isinstance(slow, Explained)
    assert slow.result.path == (*RECALLED, "toy", *CLOSING)
    assert given_to(stack) == ["first", "slow", "slow"]


async def test_who_stops_before_it_does_not_run_it(stack: TaggingStack) -> None:
    found = await stack.tagger().tag(contents("first", "slow", "bad"), until="rank")
    assert given_to(stack) == []
    assert [one.path for one in found if isinstance(one, TaggedContent)] == [(*RECALLED, *CLOSING)] * 3


async def test_where_it_is_skipped_the_curve_of_the_shorter_path_counts(stack: TaggingStack) -> None:
    shorter, longer = curve(stack, "recall", 4), curve(stack, "recall+toy", 2)
    tagger = stack.tagger([shorter, longer])
    first, long = await tagger.tag(contents("first", "long"))
    (early,) = await tagger.tag(contents("first"), until="rank")
    names = [one.versions.calibration for one in (first, long, early) if isinstance(one, TaggedContent)]
    assert names == [longer.name, shorter.name, shorter.name]


async def test_a_plan_without_it_has_no_such_stage() -> None:
    async with assemble.in_process(Settings.model_construct()) as stack:
        with pytest.raises(ValueError, match="there is no stage 'toy'"):
            await stack.tagger().tag(contents("first"), until="toy")


async def _with_knowledge(plan: Plan, settings: Settings) -> tuple[TaggedContent, list[Knowledge]]:
    """A content's result, and the segments that reached it."""
    reached: list[str] = []

    class Reader:
        """What a judge does: it reads what was retrieved."""

        name = "reader"

        async def run(self, works: Sequence[Work]) -> None:
            """See `Stage`."""
            reached.extend(segment.id for work in works for segment in work.knowledge)

    plan = replace(plan, stages=(*plan.stages, lambda _: Reader()))
    async with assemble.in_process(settings, plan=plan) as stack:
        events = {"tags": TAGS, "exemplars": [], "knowledge": SEGMENTS}
        await filling.fill(stack.projection(), events, lambda _: None)
        (one,) = await stack.tagger().tag(contents("first"))
    assert isinstance(one, TaggedContent)
    return one, [one for one in SEGMENTS if one.id in reached]


SEGMENTS = [
    Knowledge(id="hives", kind="rule", text="Hives on city roofs are beekeeping."),
    Knowledge(id="old", kind="news", text="Hives on city roofs", valid_until=datetime(2020, 1, 1, tzinfo=UTC)),
]


async def test_knowledge_is_retrieved_where_something_reads_it() -> None:
    """Given a plan that reads knowledge, a later stage has the segments that hold now, and scores stay as they were."""
    with_it, found = await _with_knowledge(Plan(reads=frozenset({"knowledge"})), Settings.model_construct())
    without, nothing = await _with_knowledge(Plan(), Settings.model_construct())
    assert [one.id for one in found] == ["hives"]
    assert nothing == []
    assert with_it.tags == without.tags
    assert with_it.path == (*RECALLED, "knowledge", "reader", *CLOSING)
    assert without.path == (*RECALLED, "reader", *CLOSING)


async def test_a_component_may_read_knowledge() -> None:
    """Given a component that requests it, the stage is in the pipeline."""
    toy = ComponentOf("toy", ComponentSettings, lambda _: "toy-1", _reading)
    async with assemble.in_process(Settings.model_construct(), plan=Plan(registry=(toy,))) as stack:
        assert [stage.name for stage in stack.stages] == [*RECALLED, "knowledge"]


async def _reading(_: ComponentSettings, __: Surroundings) -> Part:
    return Part(reads=frozenset({"knowledge"}))


async def test_knowledge_of_none_is_off() -> None:
    settings = Settings.model_construct(knowledge=KnowledgeSettings(segments=0))
    result, found = await _with_knowledge(Plan(reads=frozenset({"knowledge"})), settings)
    assert found == []
    assert "knowledge" not in result.path


async def test_an_optional_stage_whose_service_is_down_is_skipped() -> None:
    plan = Plan(stages=(*STAGES, lambda _: Away()), optional=frozenset({"away"}))
    async with assemble.in_process(Settings.model_construct(), plan=plan) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": []}, lambda _: None)
        (one,) = await stack.tagger().tag(contents("first"))
    assert isinstance(one, TaggedContent)
    assert one.tags
    assert (one.path, one.degraded) == ((*RECALLED, *CLOSING), (Degraded(stage="away", reason="DependencyDown"),))
