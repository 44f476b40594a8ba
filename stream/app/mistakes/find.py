"""Find mistakes: the worst contents, and tags confused with others, never found, or perhaps missed by people."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tagbus.stream.app.mistakes.evaluated import Evaluated, Tagged
from tagbus.stream.contract.events import ScoredTag
from tagbus.stream.quality import Floats, ndcg

# Rows in each part of the page.
WORST: Final = 30
CONFUSED: Final = 50
NEVER: Final = 100
GAPS: Final = 60
# A tag that annotators always leave out would fill the list of gaps.
GAPS_A_TAG: Final = 3
# Example titles per row.
SHOWN: Final = 2
# An nDCG@5 of 1, within floating-point error.
BEST: Final = 1 - 1e-9
# The model is sure: LLM4Tag publishes tags from this confidence on.
SURE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Confusion:
    """`taken` was among a content's best tags while the right tag `missed` was not, for `times` of the `of` contents
    with that tag. `relation`: how the taxonomy relates the two; empty if it does not."""

    missed: str
    taken: str
    times: int
    of: int
    relation: str
    examples: Sequence[Tagged]


@dataclass(frozen=True, slots=True)
class Never:
    """A tag that is right for `contents` but was found for none of them. `given`: how often it was found elsewhere."""

    tag: str
    contents: int
    given: int
    examples: Sequence[Tagged]


@dataclass(frozen=True, slots=True)
class Gap:
    """A tag that people did not give the content but the model is sure of."""

    tagged: Tagged
    tag: ScoredTag


@dataclass(frozen=True, slots=True)
class Gaps:
    """The surest gaps. `pairs`: the number of found tags at least as sure as the last one; `annotated`: the share of
    these that people gave."""

    rows: Sequence[Gap]
    least: float
    pairs: int
    annotated: float


def worst(evaluated: Evaluated, most: int = WORST) -> list[Tagged]:
    """The contents with the lowest nDCG@5; ties go to the content whose best wrong tag is the surest."""
    known = [one for one in evaluated.contents if one.right]

    def badness(row: tuple[float, Tagged]) -> tuple[float, float, str]:
        gain, one = row
        return gain, -max((tag.confidence for tag in one.wrong()), default=0.0), one.content.id

    rows = [(gain, one) for gain, one in zip(_gains(known).tolist(), known, strict=True) if gain < BEST]
    return [one for _, one in sorted(rows, key=badness)[:most]]


def _gains(contents: Sequence[Tagged]) -> Floats:
    """nDCG@5 of each."""
    right = np.zeros((len(contents), 5), np.bool_)
    for row, one in enumerate(contents):
        first = one.found[:5]
        right[row, : len(first)] = [tag.id in one.right for tag in first]
    return ndcg(right, np.array([len(one.right) for one in contents], np.int64), 5)


def confusions(evaluated: Evaluated, most: int = CONFUSED) -> list[Confusion]:
    """Tags that are confused with others. Of a content with n right tags the n best are looked at: each wrong one
    counts once for each right one that is missing. Pairs that occur for one content only are left out."""
    pairs: dict[tuple[str, str], list[Tagged]] = defaultdict(list)
    for one in evaluated.contents:
        first = one.found[: len(one.right)]
        missed = one.right - {tag.id for tag in first}
        for tag in first:
            if tag.id not in one.right:
                for other in missed:
                    pairs[other, tag.id].append(one)
    of = Counter(tag for one in evaluated.contents for tag in one.right)
    # A frequent tag occurs with everything, so a pair is ranked by its share of the right tag's contents.
    found = sorted(
        ((pair, ones) for pair, ones in pairs.items() if len(ones) > 1),
        key=lambda row: (-(len(row[1]) ** 2) / of[row[0][0]], row[0]),
    )
    return [
        Confusion(missed, taken, len(ones), of[missed], _relation(evaluated, missed, taken), ones[:SHOWN])
        for (missed, taken), ones in found[:most]
    ]


def _relation(evaluated: Evaluated, missed: str, taken: str) -> str:
    parents = {tag: evaluated.tags[tag].parents if tag in evaluated.tags else () for tag in (missed, taken)}
    if taken in parents[missed]:
        return "broader"
    if missed in parents[taken]:
        return "narrower"
    return "sibling" if set(parents[missed]) & set(parents[taken]) else ""


def never_found(evaluated: Evaluated, most: int = NEVER) -> tuple[int, list[Never]]:
    """The number of tags that were never found for the contents they are right for, and the most frequent of them."""
    carried: dict[str, list[Tagged]] = defaultdict(list)
    for one in evaluated.contents:
        for tag in one.right:
            carried[tag].append(one)
    hit = {tag.id for one in evaluated.contents for tag in one.found if tag.id in one.right}
    given = Counter(tag.id for one in evaluated.contents for tag in one.found)
    rows = sorted((tag for tag in carried if tag not in hit), key=lambda tag: (-len(carried[tag]), tag))
    shown = [Never(tag, len(carried[tag]), given[tag], carried[tag][:SHOWN]) for tag in rows[:most]]
    return len(rows), shown


def gaps(evaluated: Evaluated, most: int = GAPS) -> Gaps:
    """The tags that people did not give and the model is surest of, from a confidence of 0.5 up."""
    sure = [Gap(one, tag) for one in evaluated.contents if one.right for tag in one.wrong() if tag.confidence >= SURE]
    rows: list[Gap] = []
    taken: Counter[str] = Counter()
    for gap in sorted(sure, key=lambda gap: (-gap.tag.confidence, gap.tagged.content.id)):
        if len(rows) < most and taken[gap.tag.id] < GAPS_A_TAG:
            taken[gap.tag.id] += 1
            rows.append(gap)
    least = rows[-1].tag.confidence if rows else SURE
    pairs = [tag.id in one.right for one in evaluated.contents for tag in one.found if tag.confidence >= least]
    return Gaps(rows, least, len(pairs), sum(pairs) / len(pairs) if pairs else 0.0)


def looked_at(evaluated: Evaluated) -> list[Tagged]:
    """The contents whose evidence the page shows."""
    shown = [*worst(evaluated), *(gap.tagged for gap in gaps(evaluated).rows)]
    return list({one.content.id: one for one in shown}.values())
