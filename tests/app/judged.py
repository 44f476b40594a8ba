"""Contents tagged with a scripted judge."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tagbus.stream import calibrate
from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.judge import judging
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import CascadeSettings, LlmSettings, Settings
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag, TaggedContent
from tagbus.stream.contract.release import LEAST, MOST, JudgeFit, Knots
from tagbus.stream.errors import Retryable
from tagbus.stream.llm import Answer, Asked, Judged, Usage
from tagbus.stream.llm.base import Backend

WORDS = ("bees", "honey", "hives", "pollen", "wax", "queens")
TAGS = [Tag(id=word, name=word, description=f"about {word}") for word in WORDS]
GONE = [
    Tag(id="nectar", name="nectar", replaced_by=("honey",)),
    Tag(id="combs", name="combs", replaced_by=("wax", "hives")),
]
SECRET = Tag(id="secret", name="secret hives", scopes=("other",))
BEFORE = ("prepare", "encode", "recall", "rank", "knowledge")
CLOSING = ("select", "calibrate")
SAME = Knots(scores=(LEAST, MOST), probabilities=(LEAST, MOST))
ANYTHING = Content(id="c", title="bees, honey and hives", language="en")


@dataclass
class Told:
    """A judge with scripted answers that records its questions."""

    says: Callable[[str, str], float | None]
    asked: list[Asked] = field(default_factory=list)
    failure: Retryable | None = None
    refusal: Exception | None = None
    backend: Backend = "yesno"
    # Why a tag has no probability.
    unknown: str | None = None

    async def judge(self, asked: Sequence[Asked]) -> list[Judged]:
        self.asked += asked
        if self.refusal is not None:
            raise self.refusal
        return [self._judged(one) for one in asked]

    async def close(self) -> None:
        pass

    def _judged(self, one: Asked) -> Judged:
        answers = tuple(Answer(self.says(one.content.id, question.tag_id), self.unknown) for question in one.questions)
        return Judged(answers, self.backend, "v1", "model-1", Usage(2, 300, 20), self.failure)

    def tags(self) -> list[list[str]]:
        return [[question.tag_id for question in one.questions] for one in self.asked]


def settings_of(**given: Any) -> Settings:
    llm = LlmSettings(url="http://127.0.0.1:9/v1", model="m", candidates=4)
    return Settings(llm=llm, **{"cascade": CascadeSettings(control=0.0), **given})


@asynccontextmanager
async def opened(
    judge: Told, monkeypatch: pytest.MonkeyPatch, exemplars: Sequence[Exemplar] = (), **given: Any
) -> AsyncIterator[TaggingStack]:
    monkeypatch.setattr(judging, "_open", lambda *_: judge)
    async with filled(settings_of(**given), exemplars) as stack:
        yield stack


@asynccontextmanager
async def filled(settings: Settings, exemplars: Sequence[Exemplar] = ()) -> AsyncIterator[TaggingStack]:
    """A tagger in this process, with the tags in its memory."""
    async with assemble.in_process(settings) as stack:
        knowledge = [Knowledge(id="k", kind="definition", title="Hives", text="Bees, honey and hives.")]
        events = {"tags": [*TAGS, *GONE, SECRET], "exemplars": exemplars, "knowledge": knowledge}
        await filling.fill(stack.projection(), events, lambda _: None)
        yield stack


def curve(stack: TaggingStack, **changes: Any) -> Calibration:
    """The judge counts alone: its probability is the score."""
    fit = JudgeFit(
        before=SAME, said=SAME, offset=0.0, slope=0.0, weight=1.0, pairs=100, loss_without=0.5, loss_with=0.4
    ).model_copy(update=changes)
    return calibrate.with_judge(calibrate.uncalibrated(stack.fingerprint()), fit)


async def tagged(stack: TaggingStack, *contents: Content, **changes: Any) -> list[TaggedContent]:
    found = await stack.tagger([curve(stack, **changes)]).tag(contents or [ANYTHING])
    assert all(isinstance(one, TaggedContent) for one in found)
    return found  # type: ignore[return-value]


def best(one: TaggedContent) -> list[str]:
    return [tag.id for tag in one.tags]
