"""Choose which tags of a result a person is shown, and record how likely each tag was to be shown.

Showing only the best tags would teach nothing about the others. So a share of the slots goes to candidates below the
cut, drawn evenly from the deciles of their confidence, and a share of the contents is shown blind: candidates drawn
regardless of confidence, for a caller that hides scores. The probability of each slot (its propensity) is recorded in
the decision, and calibration weights by it (feedback/learning.py).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Literal

from tagbus.stream.config import FeedbackSettings
from tagbus.stream.contract.decision import JudgedTag, ShownTag
from tagbus.stream.contract.events import ScoredTag, TaggedContent
from tagbus.stream.llm.component import NAME as JUDGE
from tagbus.stream.tagger.work import HIERARCHY

Policy = Literal["top", "explore", "blind"]

DECILES: Final = 10


@dataclass(frozen=True, slots=True)
class Slot:
    """A shown candidate: its index among the candidates, best first, the probability of its being shown, and the policy
    that chose it."""

    candidate: int
    propensity: float
    policy: Policy


@dataclass(frozen=True, slots=True)
class Display:
    """The shown tags of a result, in order. `blind`: neither scores nor confidences are visible. `judged`: the judged
    tags for the decision, if the judge was asked."""

    blind: bool
    tags: tuple[ShownTag, ...]
    judged: tuple[JudgedTag, ...] = ()


def show(result: TaggedContent, slots: int, settings: FeedbackSettings) -> Display:
    """Choose the tags of a result to show in this many slots: `shown` of the decision on it.

    The choice is deterministic per content. For candidates below the cut the result must hold more tags than slots:
    tagger.tags. Raises ValueError for less than one slot.
    """
    blind, chosen = display(result.id, len(result.tags), slots, settings.explore, settings.blind)
    tags = (_shown(result.tags[slot.candidate], rank, slot) for rank, slot in enumerate(chosen, start=1))
    return Display(blind, tuple(tags), judged(result))


def judged(result: TaggedContent) -> tuple[JudgedTag, ...]:
    """The field `judged` of the decision on a result: its tags with their scores before the judge, if it was asked."""
    if not any(JUDGE in tag.evidence.scores for tag in result.tags):
        return ()
    found = ((tag, _before(tag)) for tag in result.tags)
    return tuple(
        JudgedTag(tag=tag.id, score=score, judge=tag.evidence.scores.get(JUDGE))
        for tag, score in found
        if score is not None
    )


def display(seed: str, candidates: int, slots: int, explore: float, blind: float) -> tuple[bool, tuple[Slot, ...]]:
    """Whether a content is shown blind, and which of this many candidates, best first, fill at most `slots` slots.

    A pure function of its arguments. `explore`: the share of the slots for candidates below the cut; `blind`: the
    share of the contents that are shown blind. Raises ValueError for less than one slot.
    """
    if slots < 1:
        raise ValueError(f"{slots} slots, expected at least 1")
    if _uniform(seed, "blind") < blind:
        return True, _blind(seed, candidates, slots)
    if candidates <= slots:
        return False, tuple(Slot(number, 1.0, "top") for number in range(candidates))
    return False, _exploring(seed, candidates, slots, explore)


def _before(tag: ScoredTag) -> float | None:
    """Its score before the judge; None if the stages before gave it none for this content."""
    if tag.evidence.decided or tag.stage == HIERARCHY:
        return None
    return tag.evidence.unjudged if tag.stage == JUDGE else tag.score


def _shown(tag: ScoredTag, rank: int, slot: Slot) -> ShownTag:
    return ShownTag(
        tag=tag.id,
        rank=rank,
        score=tag.score,
        confidence=tag.confidence,
        propensity=slot.propensity,
        policy=slot.policy,
        stage=tag.stage,
    )


def _blind(seed: str, candidates: int, slots: int) -> tuple[Slot, ...]:
    """A simple random sample in random order."""
    drawn = sorted(range(candidates), key=lambda number: _uniform(seed, f"order {number}"))[:slots]
    return tuple(Slot(number, len(drawn) / candidates, "blind") for number in drawn)


def _exploring(seed: str, candidates: int, slots: int, explore: float) -> tuple[Slot, ...]:
    """The best candidates, with others in the last slots, `wanted` of them on average.

    The others are a systematic sample (Madow 1949) of the candidates below the cut in their order, in which each has
    its exact probability. If `wanted` is not a whole number, the candidate at the cut gives way whenever one more is
    drawn.
    """
    wanted = min(explore * slots, candidates - slots, DECILES)
    whole, rest = int(wanted), wanted - int(wanted)
    cut = slots - whole
    chances = _chances(candidates - cut, wanted)
    drawn = _systematic(chances, _uniform(seed, "explore"))
    kept = slots - len(drawn)
    top = [Slot(number, 1.0 if number < cut - 1 or not rest else 1 - rest, "top") for number in range(kept)]
    others = [Slot(cut + number, chances[number], "explore") for number in drawn]
    return (*top, *others)


def _chances(count: int, wanted: float) -> list[float]:
    """The probability of each of `count` candidates, of which `wanted` are drawn: the same sum for each decile."""
    deciles = min(DECILES, count)
    sizes = [count // deciles + (number < count % deciles) for number in range(deciles)]
    return [wanted / deciles / size for size in sizes for _ in range(size)]


def _systematic(chances: Sequence[float], start: float) -> list[int]:
    """The indices at which the running sum of the probabilities passes start, start + 1, ...; `start` in [0, 1)."""
    sums = [0.0, *accumulate(chances)]
    return [
        number
        for number, (before, total) in enumerate(pairwise(sums))
        if math.ceil(total - start) > math.ceil(before - start)
    ]


def _uniform(seed: str, purpose: str) -> float:
    """A number in [0, 1), deterministic for a seed and a purpose."""
    digest = hashlib.sha256(f"{purpose}\n{seed}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
