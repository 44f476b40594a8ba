"""A new release and the one in force on the newest decisions, which neither was trained on.

Both have the memory of the run: tags and training contents, without those that are compared on. The new one is better
where nDCG@5 gains or the log loss falls, the 95% interval of the difference by bootstrap over contents (Efron and
Tibshirani 1993, chapter 13) above zero, while neither of both is proven to be worse and new tags do not lose.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from tagbus.models.auto.corpus import RunCorpus
from tagbus.models.auto.recent import is_since
from tagbus.models.auto.selection import Gain, figure_of
from tagbus.models.evaluate.systems import K
from tagbus.stream import calibrate
from tagbus.stream.app import assemble, comparing, console, filling
from tagbus.stream.app.evaluation import content_of, fit, tag_all
from tagbus.stream.app.releases.loaded import fitting
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag, TaggedContent
from tagbus.stream.contract.release import Curve
from tagbus.stream.errors import UserError
from tagbus.stream.intervals import of_mean
from tagbus.stream.logistic import losses
from tagbus.stream.quality import Floats

# The confidence that a tag which was not found has.
UNFOUND: Final = 1e-3
# In points of R@10: how much new tags may fall without losing, since they are few.
LOST: Final = 1.0


class Change(BaseModel):
    """A figure of both releases, and the 95% interval of what the new one gains."""

    model_config = ConfigDict(frozen=True)

    before: float
    after: float
    low: float
    high: float


class Comparison(BaseModel):
    """The release in force, the contents, and what the new one gains. `new_tags`: R@10 of tags that no content had
    before the time of --since, None where no content has one."""

    model_config = ConfigDict(frozen=True)

    active: str
    contents: int
    ndcg: Gain
    loss: Change
    new_tags: Change | None

    def problems(self) -> Iterator[str]:
        """Why it is not better."""
        if self.ndcg.low <= 0 and self.loss.low <= 0:
            yield "neither nDCG@5 nor the log loss is proven to improve"
        if self.ndcg.high < 0:
            yield "nDCG@5 is proven to fall"
        if self.loss.high < 0:
            yield "the log loss is proven to rise"
        if (new := self.new_tags) is not None and (new.high < 0 or new.after < new.before - LOST):
            yield f"new tags lose: R@10 {new.before:.2f} to {new.after:.2f}"

    def lines(self) -> Iterator[str]:
        """The same in words."""
        yield f"on the {self.contents:,} newest decided contents, against {self.active}: {self.ndcg}"
        one = self.loss
        yield f"log loss {one.before:.4f} to {one.after:.4f} (95% of its fall {one.low:+.4f} to {one.high:+.4f})"
        if self.new_tags is None:
            yield "no content of them has a new tag"
        else:
            new = self.new_tags
            between = f"(95% of its rise {new.low:+.2f} to {new.high:+.2f})"
            yield f"new tags: R@{K} {new.before:.2f} to {new.after:.2f} {between}"


@dataclass(frozen=True, slots=True)
class ComparedRelease:
    """A release as workers have it: its settings, and its calibrations on the topic, by path."""

    name: str
    settings: Settings
    calibrations: Mapping[str, Curve]


async def compare(
    taken: RunCorpus, new: ComparedRelease, old: ComparedRelease, since: datetime, cache: Path
) -> tuple[Comparison, Calibration | None]:
    """Compare both, and return the curve that the new one was given where it brings none of its own."""
    items = [item for item in taken.corpus.exemplars("test") if item.accepted]
    test_set = taken.by(items)
    curve, after = await _tagged(taken, new, items, cache, learns=True)
    _, before = await _tagged(taken, old, items, cache, learns=False)
    both = [figure_of("ndcg_at_5", results, test_set) for results in (after, before)]
    found = Comparison(
        active=old.name,
        contents=len(items),
        ndcg=Gain.of("ndcg_at_5", *both),
        loss=loss_of(before, after, items),
        new_tags=_new_tags(before, after, items, counts_before(taken, since)),
    )
    return found, curve


def counts_before(taken: RunCorpus, since: datetime) -> Counter[str]:
    """How many contents that were decided before then carry each tag."""
    learnt = chain(taken.corpus.exemplars("train"), taken.corpus.exemplars("val"))
    return comparing.counts_of(item for item in learnt if not is_since(item, since))


async def _tagged(
    taken: RunCorpus, side: ComparedRelease, items: Sequence[Exemplar], cache: Path, *, learns: bool
) -> tuple[Calibration | None, list[TaggedContent]]:
    """What a release finds, by the calibrations that it has. `learns`: one is fitted where there is none."""
    async with _opened(taken, side, cache) as stack:
        curves, fitted = list(fitting(stack, side.calibrations)), None
        if learns and assemble.calibration_of(stack.settings, stack.release, stack.components).name == calibrate.NONE:
            # Too few pairs to fit it to leave it without one, as workers would have it.
            with suppress(UserError):
                fitted = await fit(stack, list(taken.corpus.exemplars("val")))
                curves = [fitted]
        tagger = stack.tagger(curves)
        with console.bar(f"tagging, {side.name}", len(items)) as bar:
            return fitted, await tag_all(tagger, [content_of(item) for item in items], bar.advance)


def loss_of(before: Sequence[TaggedContent], after: Sequence[TaggedContent], items: Sequence[Exemplar]) -> Change:
    """The log loss of each content: the mean over the tags that were decided or that either release finds."""
    values = np.array([_losses(*three) for three in zip(before, after, items, strict=True)])
    low, high = of_mean(values[:, 0] - values[:, 1])
    mean = values.mean(axis=0)
    return Change(before=float(mean[0]), after=float(mean[1]), low=float(low), high=float(high))


def _losses(before: TaggedContent, after: TaggedContent, item: Exemplar) -> tuple[float, float]:
    given = [{tag.id: tag.confidence for tag in one.tags[:K]} for one in (before, after)]
    tags = sorted({*item.accepted, *item.rejected, *given[0], *given[1]})
    right = np.array([tag in item.accepted for tag in tags])
    found: list[float] = []
    for one in given:
        confidence: Floats = np.array([one.get(tag, UNFOUND) for tag in tags])
        found.append(float(losses(confidence, right).mean()))
    return found[0], found[1]


def _new_tags(
    before: Sequence[TaggedContent],
    after: Sequence[TaggedContent],
    items: Sequence[Exemplar],
    counts: Mapping[str, int],
) -> Change | None:
    truth = {item.id: frozenset(item.accepted) for item in items}
    for row in comparing.compared(before, after, truth, counts):
        if row.name == f"R@{K} new":
            return Change(before=row.before, after=row.after, low=row.low, high=row.high)
    return None


@asynccontextmanager
async def _opened(taken: RunCorpus, side: ComparedRelease, cache: Path) -> AsyncIterator[assemble.TaggingStack]:
    """A release over a memory of the training contents, in this process."""
    tagger = side.settings.tagger.model_copy(update={"tags": K, "least_confidence": 0.0})
    async with assemble.in_process(side.settings.model_copy(update={"tagger": tagger}), cache) as stack:
        events: dict[str, Iterable[Tag | Exemplar | Knowledge]] = {
            "tags": taken.corpus.tags(),
            "exemplars": taken.corpus.exemplars("train"),
        }
        await filling.fill(stack.projection(), events, lambda _: None)
        yield stack
