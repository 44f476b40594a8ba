"""What a person is shown of a result, and how likely each tag was to be shown.

Of the best tags alone nobody learns what the others were worth. So a share of the places goes to candidates below the
cut, drawn evenly from the deciles of their confidence, and a share of the contents is shown blind: candidates drawn
without regard to confidence, for a caller that hides scores. The probability of each place (its propensity) goes into
the decision, and calibration weighs by it (feedback/learning.py).
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
class Place:
    """A shown candidate: its number among the candidates, best first, the probability that it was to be shown, and
    why it is."""

    candidate: int
    propensity: float
    policy: Policy


@dataclass(frozen=True, slots=True)
class Display:
    """What a person is shown of a result, in order. `blind`: neither scores nor confidences are visible. `judged`: what
    else the decision carries, if the judge was asked."""

    blind: bool
    tags: tuple[ShownTag, ...]
    judged: tuple[JudgedTag, ...] = ()


def show(result: TaggedContent, places: int, settings: FeedbackSettings) -> Display:
    """What to show of a result on so many places: `shown` of the decision on it.

    The same content is always shown the same. For candidates below the cut the result must hold more tags than places:
    tagger.tags. Raises ValueError for less than one place.
    """
    blind, chosen = display(result.id, len(result.tags), places, settings.explore, settings.blind)
    tags = (_shown(result.tags[place.candidate], rank, place) for rank, place in enumerate(chosen, start=1))
    return Display(blind, tuple(tags), judged(result))


def judged(result: TaggedContent) -> tuple[JudgedTag, ...]:
    """`judged` of the decision on a result: its tags with their scores before the judge, if the judge was asked."""
    if not any(JUDGE in tag.evidence.scores for tag in result.tags):
        return ()
    found = ((tag, _before(tag)) for tag in result.tags)
    return tuple(
        JudgedTag(tag=tag.id, score=score, judge=tag.evidence.scores.get(JUDGE))
        for tag, score in found
        if score is not None
    )


def display(seed: str, candidates: int, places: int, explore: float, blind: float) -> tuple[bool, tuple[Place, ...]]:
    """Whether a content is shown blind, and which of so many candidates, best first, are shown on at most `places`.

    A pure function of its arguments. `explore`: the share of the places for candidates below the cut; `blind`: the
    share of the contents that are shown blind. Raises ValueError for less than one place.
    """
    if places < 1:
        raise ValueError(f"{places} places, expected at least 1")
    if _uniform(seed, "blind") < blind:
        return True, _blind(seed, candidates, places)
    if candidates <= places:
        return False, tuple(Place(number, 1.0, "top") for number in range(candidates))
    return False, _exploring(seed, candidates, places, explore)


def _before(tag: ScoredTag) -> float | None:
    """Its score before the judge; None where it has none that the stages before gave it here."""
    if tag.evidence.decided or tag.stage == HIERARCHY:
        return None
    return tag.evidence.unjudged if tag.stage == JUDGE else tag.score


def _shown(tag: ScoredTag, rank: int, place: Place) -> ShownTag:
    return ShownTag(
        tag=tag.id,
        rank=rank,
        score=tag.score,
        confidence=tag.confidence,
        propensity=place.propensity,
        policy=place.policy,
        stage=tag.stage,
    )


def _blind(seed: str, candidates: int, places: int) -> tuple[Place, ...]:
    """A simple random sample in random order."""
    drawn = sorted(range(candidates), key=lambda number: _uniform(seed, f"order {number}"))[:places]
    return tuple(Place(number, len(drawn) / candidates, "blind") for number in drawn)


def _exploring(seed: str, candidates: int, places: int, explore: float) -> tuple[Place, ...]:
    """The best candidates, and in `wanted` places, on average, others: the last places are the ones given away.

    The others are a systematic sample (Madow 1949) of the candidates below the cut in their order, in which each has
    its exact probability. Where `wanted` is no whole number, the candidate at the cut gives way as often as one more
    is drawn.
    """
    wanted = min(explore * places, candidates - places, DECILES)
    whole, rest = int(wanted), wanted - int(wanted)
    cut = places - whole
    chances = _chances(candidates - cut, wanted)
    drawn = _systematic(chances, _uniform(seed, "explore"))
    kept = places - len(drawn)
    top = [Place(number, 1.0 if number < cut - 1 or not rest else 1 - rest, "top") for number in range(kept)]
    others = [Place(cut + number, chances[number], "explore") for number in drawn]
    return (*top, *others)


def _chances(count: int, wanted: float) -> list[float]:
    """The probability of each of so many candidates, of which `wanted` are drawn: the same for each decile."""
    deciles = min(DECILES, count)
    sizes = [count // deciles + (number < count % deciles) for number in range(deciles)]
    return [wanted / deciles / size for size in sizes for _ in range(size)]


def _systematic(chances: Sequence[float], start: float) -> list[int]:
    """Those in which the running sum of the probabilities passes start, start + 1 and so on; `start` in [0, 1)."""
    sums = [0.0, *accumulate(chances)]
    return [
        number
        for number, (before, total) in enumerate(pairwise(sums))
        if math.ceil(total - start) > math.ceil(before - start)
    ]


def _uniform(seed: str, purpose: str) -> float:
    """A number in [0, 1) that is always the same for a seed and a purpose."""
    digest = hashlib.sha256(f"{purpose}\n{seed}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
