"""Candidates for a ranker where C2T finds new tags alone."""

from dataclasses import replace

import numpy as np

from tagbus.models.rank.candidates import Candidates, Source, collect
from tagbus.stream.config import RecallSettings
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.pool import Flags
from tagbus.stream.recall.taxonomy.unseen import Unseen
from tests.models.rank.test_ranker import RECIPE, TAGS, annotated, source

# The heads know the tags below this number.
KNOWN = 30
NAMES_SCORE, HEADS_SCORE = 0, 3


async def leaving_known_tags() -> Source:
    over = await source()
    tags, exemplars = over.graph._tags, over.graph._neighbourhood._exemplars
    unseen = Unseen(frozenset(f"t{number}" for number in range(KNOWN)), tags)
    return replace(over, graph=GraphRecall(tags, exemplars, RecallDefaults(), RecallSettings(), unseen=unseen))


def by_name(some: Candidates) -> Flags:
    return np.asarray(~np.isnan(some.features[:, NAMES_SCORE]))


async def test_c2t_gives_them_new_tags_and_those_masked_as_new() -> None:
    """A masked tag is known to C2T, as a new one is, and to nothing that was trained; the first ten a content."""
    found = await collect(await leaving_known_tags(), *annotated(40, 5, "val-"), replace(RECIPE, new_share=0.3))

    plain, masked = found.plain, found.masked
    assert set(plain.tags[by_name(plain)].tolist()) == set(range(KNOWN, TAGS))
    known = by_name(masked) & (masked.tags < KNOWN)
    assert known.sum() > 20
    assert np.isnan(masked.features[known, HEADS_SCORE]).all()
    for some in (plain, masked):
        assert np.bincount(some.rows[by_name(some)]).max() == RECIPE.names == 10


async def test_where_c2t_finds_all_tags_it_gives_all() -> None:
    found = await collect(await source(), *annotated(40, 5, "val-"), replace(RECIPE, new_share=0.3))

    assert set(found.plain.tags[by_name(found.plain)].tolist()) == set(range(TAGS))
