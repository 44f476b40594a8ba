"""The ranker's training set: candidates of held-out contents, as they are and with some tags masked as new."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data.texts import text_of
from tagbus.stream import quality
from tagbus.stream.app import console
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError
from tagbus.stream.rank import trees
from tagbus.stream.rank.candidates import Facts, facts
from tagbus.stream.rank.features.base import Limits, Tables, draw
from tagbus.stream.rank.features.tables import Statistics, TableName, features
from tagbus.stream.rank.trees import rarity
from tagbus.stream.recall.base import Query, Recaller
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.neighbours import Reach
from tagbus.stream.recall.pool import NAMES, Ballots, Flags, Floats, Ints, Listed, Numbers, Pool, pool
from tagbus.stream.recall.second_encoder import VOTES
from tagbus.stream.recall.votes import ranks

BATCH: Final = 256
# Recallers by name: they are not trained, so they find new tags like any other.
BY_NAME: Final = frozenset({NAMES, "literal"})
# Numbers of exemplars of a tag masked as new, drawn uniformly.
YOUNG: Final = (0, 0, 1, 5, 20)

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of a ranker.

    `new_share`: share of tags masked as new, drawn separately for each content. `threads`: of LightGBM, 0: all cores;
    its threads synchronise, and on busy cores one thread took 2 s where two took 34. `top`: candidates per content that
    the cross-encoder scores. `seeds`: models of each kind, averaged. `sure`: entries of the lists by name that always
    become candidates: with heads, label trees and a second encoder this finds 31% instead of 24% of the tags masked as
    new, and does not change the others. `tables`: named feature tables that it reads.
    """

    trees: int = 100
    leaves: int = 31
    rate: float = 0.05
    new_share: float = 0.1
    names: int = 50
    neighbours: int = 100
    listed: int = 60
    voted: int = 60
    kept: int = 64
    sure: int = 10
    fewest_together: int = 2
    seed: int = 0
    threads: int = 1
    top: int = 24
    seeds: int = 3
    tables: tuple[TableName, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """m candidates of n contents, grouped by content: tag `tags[i]` for content `rows[i]`.

    `features` float32 [m, f]; `right`: whether the tag is right; `rare` float32 [m]: -log of the tag's propensity.
    """

    rows: Ints
    tags: Ints
    features: Floats
    right: Labels
    rare: Floats

    def where(self, kept: Flags) -> "Candidates":
        """The candidates in the mask; row numbers of contents do not change."""
        return Candidates(self.rows[kept], self.tags[kept], self.features[kept], self.right[kept], self.rare[kept])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Candidates as the tagger sees them, the same with some tags masked as new, the right tags of each content, and
    the propensity float64 [t] of each tag."""

    plain: Candidates
    masked: Candidates
    truth: Sequence[Ints]
    propensity: Scores


@dataclass(frozen=True, slots=True)
class Source:
    """The recallers, the numbers of the tags, and their statistics."""

    graph: GraphRecall
    others: Sequence[Recaller]
    numbers: Numbers
    statistics: Statistics


async def collect(source: Source, held: Sequence[Exemplar], vectors: Floats, recipe: Recipe) -> TrainingSet:
    """The training set from contents that are neither in memory nor in the training of the heads."""
    if not held:
        raise UserError("there are no validation contents; the ranker is trained on contents that are not in memory")
    plain, masked = [], []
    payloads = await source.graph.facts(source.numbers.ids)
    known = facts(source.numbers, payloads)
    truth = [np.unique(source.numbers.of(item.accepted)) for item in held]
    # The tags that C2T finds, if not all.
    new = None if source.graph.unseen is None else source.numbers.of(sorted(await source.graph.unseen.keys()))
    with console.bar("recalling candidates", len(held)) as bar:
        for start in range(0, len(held), BATCH):
            some = held[start : start + BATCH]
            full = await _recall(source, some, vectors[start : start + BATCH], recipe)
            shown = full if new is None else _left_to_c2t(full, np.isin(full.lists[NAMES].tags, new), recipe.names)
            right = np.concatenate([row * full.width + tags for row, tags in enumerate(truth[start : start + BATCH])])
            plain.append(_drawn(shown, known, source.statistics, right, start, full.width, recipe))
            hidden = mask_as_new(full, known, source.statistics.tables, start, recipe, new)
            masked.append(_drawn(*hidden, source.statistics, right, start, full.width, recipe))
            bar.advance(len(some))
    tables = source.statistics.tables
    counts = np.zeros(len(source.numbers), np.int64)
    counts[: len(tables.counts)] = tables.counts
    propensity = quality.propensities(counts, max(tables.contents, trees.FEWEST))
    return TrainingSet(_joined(plain), _joined(masked), truth, propensity)


async def _recall(source: Source, held: Sequence[Exemplar], vectors: Floats, recipe: Recipe) -> Pool:
    """The pool of these contents, with similar tags of any kind: enough that those to be masked are among them."""
    query = Query([item.id for item in held], [text_of(item) for item in held], vectors)
    reach = Reach(recipe.names, recipe.neighbours)
    seen = await source.graph.look(query.ids, vectors, reach)
    if source.graph.unseen is not None:
        similar = await source.graph.similar(vectors, math.ceil(recipe.names / max(recipe.new_share, 0.01)))
        seen = [replace(one, direct=similar[row]) for row, one in enumerate(seen)]
    lists = await asyncio.gather(*(other.recall(query) for other in source.others))
    found = dict(zip((other.name for other in source.others), lists, strict=True))
    return pool(source.numbers, query.texts, seen, found)


def _drawn(
    full: Pool, known: Facts, statistics: Statistics, right: Ints, start: int, width: int, recipe: Recipe
) -> Candidates:
    """The candidates of a pool. Tag numbers from `width` on are tags masked as new."""
    drawn = draw(full, Limits(recipe.listed, recipe.voted, recipe.kept, recipe.sure))
    drawn = drawn.where(np.isin(drawn.tags, known.tags))
    tags = drawn.tags % width
    return Candidates(
        drawn.rows + start,
        tags,
        features(full, drawn, known, statistics, tuple(full.lists)),
        np.isin(drawn.rows * width + tags, right),
        rarity(statistics.tables, drawn.tags),
    )


def _left_to_c2t(full: Pool, chosen: Flags, limit: int) -> Pool:
    """The pool with these similar tags alone, the first ones of each content."""
    names = full.lists[NAMES]
    rows = names.rows[chosen]
    first = ranks(rows) < limit
    kept = Listed(rows[first], names.tags[chosen][first], names.scores[chosen][first])
    return replace(full, lists={**full.lists, NAMES: kept})


def mask_as_new(
    full: Pool, known: Facts, tables: Tables, start: int, recipe: Recipe, new: Ints | None = None
) -> tuple[Pool, Facts]:
    """The pool with a share of each content's tags masked as new; `start` is the number of the first content. `new`:
    the tags that C2T finds, if it leaves trained ones to their components; then it finds masked ones too.

    A masked tag gets a number that the tables do not contain, so it has no prior and no co-occurrences. It is removed
    from the lists of trained recallers, and keeps as many votes, also of a second encoder, as it would have with 0, 1,
    5 or 20 exemplars.
    """
    width = full.width

    def hide(rows: Ints, tags: Ints) -> tuple[Flags, Ints]:
        drawn = uniform(rows + start, tags, recipe.seed)
        hidden = drawn < recipe.new_share
        return hidden, np.where(hidden, tags + width, tags)

    def share(rows: Ints, tags: Ints) -> Scores:
        """The share of a tag's exemplars that it keeps when masked."""
        age = uniform(rows + start, tags, recipe.seed + 1) * len(YOUNG)
        return np.array(YOUNG)[age.astype(np.int64)] / np.maximum(tables.count(tags), 1)

    lists = {}
    for name, listed in full.lists.items():
        hidden, tags = hide(listed.rows, listed.tags)
        kept = ~hidden
        if name in BY_NAME:
            kept = np.ones(len(tags), np.bool_)
        elif name == VOTES:
            kept |= uniform(listed.rows + start, listed.tags, recipe.seed + 3) < share(listed.rows, listed.tags)
        lists[name] = Listed(listed.rows[kept], tags[kept], listed.scores[kept])
    ballots = full.ballots
    rows = ballots.rows[ballots.voters]
    hidden, tags = hide(rows, ballots.tags)
    drawn = uniform(np.arange(len(tags)) + start * 1_000_003, tags, recipe.seed + 2)
    kept = ~hidden | (drawn < share(rows, ballots.tags))
    twice = Facts(
        np.concatenate([known.tags, known.tags + width]),
        np.tile(known.letters, 2),
        np.concatenate([known.child, known.child + width, known.child, known.child + width]),
        np.concatenate([known.parent, known.parent, known.parent + width, known.parent + width]),
    )
    votes = Ballots(ballots.rows, ballots.similarity, ballots.machine, ballots.voters[kept], tags[kept])
    masked = Pool(full.texts, 2 * width, lists, votes)
    if new is not None:
        similar = lists[NAMES].tags
        masked = _left_to_c2t(masked, (similar >= width) | np.isin(similar, new), recipe.names)
    return masked, twice


def with_masked(plain: Candidates, masked: Candidates) -> Candidates:
    """Each content twice, plain and masked. Training on the masked ones alone costs 0.2 of P@1."""
    return _joined([plain, replace(masked, rows=masked.rows + plain.rows.max(initial=0) + 1)])


def _joined(parts: Sequence[Candidates]) -> Candidates:
    columns = ([getattr(part, name) for part in parts] for name in Candidates.__dataclass_fields__)
    return Candidates(*map(np.concatenate, columns))


def uniform(first: Ints, second: Ints, seed: int) -> Scores:
    """A deterministic pseudo-random number in [0, 1) per pair (the finaliser of SplitMix64)."""
    mixed = first.astype(np.uint64) << np.uint64(32) ^ second.astype(np.uint64)
    mixed += np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53
