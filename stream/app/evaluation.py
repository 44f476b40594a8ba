"""Tag contents with known tags to fit a calibration and to measure quality and calibration."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.stream import calibrate, quality
from tagbus.stream.app import console
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import made
from tagbus.stream.app.judge import fitting
from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.tagger import Explained, Failure, Tagger

BATCH: Final = 256
# Batches in flight: one is encoded while the other is searched.
AT_ONCE: Final = 2
K: Final = 10

Truth = Mapping[str, frozenset[str]]


def ran(stack: TaggingStack) -> dict[str, object]:
    """The provenance of a stack's figures: release, path, component versions, the memory, and the recall settings that
    override the release's own."""
    recall = stack.settings.recall.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {
        "release": stack.release.name,
        "path": stack.components.scoring,
        "components": stack.components.versions,
        "memory": stack.settings.memory.kind,
        "recall": recall,
    }


def name_of(stack: TaggingStack) -> str:
    """The name of a row of figures: the release and the versions of the components that are on."""
    return ", ".join((stack.release.name, *(stack.components.versions.values() or ("no components",))))


async def fit(stack: TaggingStack, annotated: Sequence[Exemplar]) -> Calibration:
    """Fit the calibration of this memory on contents with known tags; with a judge, its weight and its cascade too."""
    return fit_to(stack, await undecided(stack, annotated), annotated)


async def undecided(stack: TaggingStack, annotated: Sequence[Exemplar]) -> list[TaggedContent]:
    """The raw-score results of contents with known tags; a judge is asked about all of them."""
    with console.bar("calibrating", len(annotated)) as bar:
        return await tag_all(stack.asking(), [content_of(item) for item in annotated], bar.advance)


def fit_to(stack: TaggingStack, results: Sequence[TaggedContent], annotated: Sequence[Exemplar]) -> Calibration:
    """Fit to results of `undecided`, or to some of them."""
    truth = {item.id: frozenset(item.accepted) for item in annotated}
    if stack.judged:
        return fitting.fit(results, truth, stack.fingerprint(), stack.settings.cascade)
    scores, right = pairs(results, truth, lambda tag_score, _: tag_score)
    return calibrate.fit(scores, right, stack.fingerprint(), len(results))


def content_of(item: Exemplar) -> Content:
    """The content of an exemplar, which sees what that does. Raises UserError for one without title and text."""
    return made(Content, item.id, id=item.id, title=item.title, text=item.text, scopes=item.scopes)


async def in_force(stack: TaggingStack, annotated: Sequence[Exemplar]) -> list[Exemplar]:
    """Contents with known tags as this memory's results name them: replaced tags as their successors. A content that
    has no tag then is left out: it is not known which of several successors are right. Raises UserError if that leaves
    none, DependencyDown."""
    standing, named = stack.graph.standing, {tag for item in annotated for tag in item.accepted}
    # All at once: on a server each look-up is a round trip.
    await standing.follow(stack.graph.numbers.of(sorted(named)))
    found = []
    for item in annotated:
        accepted, _ = await standing.decisions(item.accepted, ())
        if accepted or not item.accepted:
            found.append(item.model_copy(update={"accepted": accepted}))
    if annotated and not found:
        raise UserError(f"the tags of all {len(annotated)} contents are split, expected contents with tags in force")
    return found


def pairs(
    results: Sequence[TaggedContent], truth: Truth, number: Callable[[float, float], float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Every (content, tag) of the results: `number(score, confidence)` float64 [n], and whether the tag is right."""
    found = [(number(tag.score, tag.confidence), tag.id in truth[one.id]) for one in results for tag in one.tags]
    return np.array([value for value, _ in found], np.float64), np.array([right for _, right in found], np.bool_)


async def tag_all(tagger: Tagger, contents: Sequence[Content], advance: Callable[[int], None]) -> list[TaggedContent]:
    """Tag contents in batches, a few in flight; results in input order. Raises UserError if a content fails."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(batch: Sequence[Content]) -> list[TaggedContent]:
        async with gate:
            outcomes = await tagger.explain_all(batch)
        advance(len(batch))
        return [tagged(outcome).result for outcome in outcomes]

    batches = [contents[start : start + BATCH] for start in range(0, len(contents), BATCH)]
    return [result for done in await asyncio.gather(*map(one, batches)) for result in done]


def tagged(outcome: Explained | Failure) -> Explained:
    """The outcome. Raises UserError for a content that could not be tagged."""
    if isinstance(outcome, Failure):
        raise UserError(f"content {shorten(outcome.id)} could not be tagged: {outcome.error}")
    return outcome


def measure(
    results: Sequence[TaggedContent], truth: Truth, taxonomy: Sequence[Tag], counts: Mapping[str, int], titles: int
) -> quality.Quality:
    """The metrics of these results. `counts`: how many of `titles` training contents carry each tag."""
    number = {tag.id: index for index, tag in enumerate(taxonomy)}
    ranked = np.full((len(results), K), -1, np.int64)
    confidence = np.zeros((len(results), K), np.float64)
    for row, result in enumerate(results):
        for column, tag in enumerate(result.tags[:K]):
            ranked[row, column] = number[tag.id]
            confidence[row, column] = tag.confidence
    right = [np.array(sorted(number[tag] for tag in truth[result.id]), np.int64) for result in results]
    frequency = np.array([counts.get(tag.id, 0) for tag in taxonomy], np.int64)
    return quality.measure(quality.Ranked(ranked, confidence), right, quality.propensities(frequency, titles))
