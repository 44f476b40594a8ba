"""Which of the trained parts a release gets: those that gain on contents that nothing was trained on.

Memory alone is the row to beat. A row is better where the 95% interval of its gain over memory alone, by bootstrap over
contents that both tag, is above zero; the best of the better rows is taken. What gains is nDCG@5, or P@1 where a
content has one tag or none.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict

from tagbus.models.auto.corpus import RunCorpus
from tagbus.models.evaluate.measure import EvaluationSet
from tagbus.models.evaluate.rows import LITERAL, Row
from tagbus.models.evaluate.systems import settings_of, with_memory
from tagbus.stream import quality
from tagbus.stream.app import assemble, console
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.evaluation import content_of, fit, tag_all
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.errors import UserError
from tagbus.stream.intervals import of_mean
from tagbus.stream.quality import Floats
from tagbus.stream.rank import trees
from tagbus.stream.recall.component import variable

# Trained parts of a release, in path order: a folder of that name.
PARTS: Final = ("heads", "labeltree", "tagvectors", "second_encoder", "ranker")
ALONE: Final = "memory alone"
Goal = Literal["p_at_1", "ndcg_at_5"]
# Columns of `quality.Parts.over`.
COLUMNS: Final[Mapping[Goal, int]] = {"p_at_1": 0, "ndcg_at_5": 3}


class Gain(BaseModel):
    """What a figure gains, in points, with the 95% interval."""

    model_config = ConfigDict(frozen=True)

    goal: Goal
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, goal: Goal, after: Floats, before: Floats) -> Self:
        """Of the figure of each content, after and before."""
        low, high = of_mean(after - before)
        mean = float((after - before).mean())
        return cls(goal=goal, mean=round(mean, 2), low=round(float(low), 2), high=round(float(high), 2))

    def __str__(self) -> str:
        return f"{self.mean:+.2f} points of {quality.LABELS[self.goal]} (95% {self.low:+.2f} to {self.high:+.2f})"


class Measured(BaseModel):
    """A row of the selection: its parts, its figure and what that gains over memory alone, which gains nothing."""

    model_config = ConfigDict(frozen=True)

    name: str
    parts: tuple[str, ...]
    figure: float
    gain: Gain | None = None


class Selection(BaseModel):
    """The rows, measured on so many contents, and the parts that are taken."""

    model_config = ConfigDict(frozen=True)

    goal: Goal
    contents: int
    rows: tuple[Measured, ...]
    parts: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The same in words."""
        if not self.contents:
            yield "there are no validation contents to choose by: all that was trained is taken"
            return
        for row in self.rows:
            gains = "" if row.gain is None else f", {row.gain}"
            figure = f"{quality.LABELS[self.goal]} {row.figure:.2f}"
            yield f"on {self.contents:,} validation contents: {row.name}: {figure}{gains}"
        if self.parts:
            yield f"taken: {', '.join(self.parts)}: the best row whose gain has an interval above zero"
        elif len(self.rows) > 1:
            yield "taken: memory alone, since nothing that was trained is proven to gain"


@dataclass(frozen=True, slots=True)
class Trained:
    """Folders of the encoder and of the trained parts, by name, and of embeddings."""

    encoder: Path
    parts: Mapping[str, Path]
    cache: Path

    def row(self, parts: Sequence[str]) -> Row:
        """The row with these parts. The ranker and what it ranks read literal names."""
        encoder = {"TAGBUS_ENCODER__FOLDER": str(self.encoder)}
        folders = {variable(name, "folder"): str(self.parts[name]) for name in parts}
        return Row(name_of(parts), "", encoder | folders | (LITERAL if parts else {}))


def name_of(parts: Sequence[str]) -> str:
    """A row in words."""
    return " + ".join(part.replace("_", " ") for part in parts) or ALONE


async def select(taken: RunCorpus, trained: Trained, goal: Goal) -> Selection:
    """Measure memory alone, all parts but the ranker, and all parts; take what gains."""
    held = [item for item in taken.held() if item.accepted]
    on = tuple(name for name in PARTS if name in trained.parts)
    if not held:
        return Selection(goal=goal, contents=0, rows=(), parts=on)
    test_set, rows = taken.by(held), dict.fromkeys(((), tuple(name for name in on if name != trees.NAME), on))
    figures: dict[tuple[str, ...], Floats] = {}
    async with memory(taken, trained) as bare:
        for parts in rows:
            results = await tagged(trained.row(parts), test_set, held, bare, trained.encoder)
            figures[parts] = figure_of(goal, results, test_set)
    measured = [
        Measured(
            name=name_of(parts),
            parts=parts,
            figure=round(float(values.mean()), 2),
            gain=Gain.of(goal, values, figures[()]) if parts else None,
        )
        for parts, values in figures.items()
    ]
    return Selection(goal=goal, contents=len(held), rows=tuple(measured), parts=chosen(measured))


def chosen(rows: Sequence[Measured]) -> tuple[str, ...]:
    """The parts of the best row that is proven to gain; none where no row is."""
    better = [row for row in rows if row.gain is not None and row.gain.low > 0]
    return max(better, key=lambda row: row.figure).parts if better else ()


def memory(taken: RunCorpus, trained: Trained) -> AbstractAsyncContextManager[TaggingStack]:
    """A stack of the encoder, over all tags and training contents."""
    on = tuple(name for name in PARTS if name in trained.parts)
    return with_memory(settings_of(trained.row(on), trained.encoder), taken.corpus, trained.cache)


async def tagged(
    row: Row, test_set: EvaluationSet, items: Sequence[Exemplar], bare: TaggingStack, folder: Path
) -> list[TaggedContent]:
    """Tag contents as the row does. Without a ranker's calibration one is fitted to the validation contents, if there
    are enough."""
    async with assemble.over(bare, settings_of(row, folder)) as stack:
        if trees.NAME in stack.parts:
            tagger = stack.tagger()
        else:
            try:
                tagger = stack.tagger([await fit(stack, test_set.val)])
            except UserError:
                tagger = stack.uncalibrated()
        contents = [content_of(item) for item in items]
        with console.bar(f"tagging, {row.name}", len(contents)) as bar:
            return await tag_all(tagger, contents, bar.advance)


def figure_of(goal: Goal, results: Sequence[TaggedContent], test_set: EvaluationSet) -> Floats:
    """The figure of each content of the set, in percent."""
    parts = quality.parts(test_set.ranked(results), test_set.truth(test_set.test), test_set.propensity)
    return parts.over[:, COLUMNS[goal]]
