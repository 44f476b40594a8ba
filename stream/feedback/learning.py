"""Calibration from people's decisions: the pairs they give, the weight of each, and whether a new curve is better.

The shown tags are not a random sample of the scored ones: the best are always shown, others rarely. So each pair is
weighted by one over its propensity (Horvitz and Thompson 1952), clipped, so that a few large weights do not dominate.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

import numpy as np

from tagbus.stream import calibrate
from tagbus.stream.calibrate import Calibration, effective_size, log_loss
from tagbus.stream.contract import release
from tagbus.stream.contract.decision import Decision, JudgedTag, ShownTag
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.errors import UserError
from tagbus.stream.feedback.history import KeptDecision, in_force, keep, merged
from tagbus.stream.llm.component import NAME as JUDGE
from tagbus.stream.tagger.work import LEARNT, UNSCORED

MOST_WEIGHT: Final = 20.0
SIGMOID_FROM: Final = 200
ISOTONIC_FROM: Final = 1000
# The share of the pairs, the newest, on which a new curve is compared with the old one.
HELD_OUT: Final = 0.2
# Maximum number of contents whose decisions are kept; the oldest are dropped.
CONTENTS: Final = 100_000
# The tagger gives no larger score, but the topic may hold numbers of any size.
MOST_SCORE: Final = 1e6
# The stage of a tag that people had already accepted: the tagger did not find it by its score.
PEOPLE: Final = "people"

PATH: Final = re.compile(release.PATH)
NAME: Final = re.compile(release.NAME)
# The step of a path at which a component takes part, by the component's name.
Steps = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """A shown tag that people agree on. `confidence`: as shown, by the curve at that time. `weight`: the number of
    pairs that it represents."""

    content: str
    time: datetime
    fingerprint: Fingerprint
    score: float
    confidence: float
    weight: float
    right: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """People's verdict on a shown tag: see `Judged`."""

    right: bool
    confidence: float
    weight: float


@dataclass(frozen=True, slots=True)
class AskedContent:
    """A content that the judge was asked about. `fingerprint`: of the path with the judge, even if its answers changed
    nothing. `tags`: all tags of the result. `decided`: the verdicts on those that people agree on, by id. `backend`:
    how the judge was asked."""

    content: str
    time: datetime
    fingerprint: Fingerprint
    tags: tuple[JudgedTag, ...]
    decided: Mapping[str, Decided]
    backend: str | None = None


@dataclass(frozen=True, slots=True)
class Refit:
    """A fit and its losses on the newest pairs. `curve`: None if the old one stays. `effective`: the number of
    unweighted pairs that would be as precise. The losses are weighted log losses."""

    pairs: int
    effective: float
    old_loss: float
    new_loss: float
    curve: Calibration | None


@dataclass(slots=True)
class _Content:
    decisions: list[KeptDecision] = field(default_factory=list)
    events: dict[str, Decision] = field(default_factory=dict)


class Observations:
    """Collects the decisions on the newest contents, as pairs for calibration.

    Bulk decisions are left out, because they say nothing about single scores, and so are tags that a content's own
    exemplar gave.
    """

    def __init__(self, steps: Steps, contents: int = CONTENTS) -> None:
        self._steps = steps
        self._limit = contents
        self._contents: dict[str, _Content] = {}

    def add(self, decision: Decision) -> None:
        """Add a decision, in the order of the log."""
        known = self._contents.pop(decision.id, None) or _Content()
        self._contents[decision.id] = known
        if decision.decision in known.events:
            return
        known.decisions.append(keep(decision, None))
        known.events[decision.decision] = decision.model_copy(update={"title": "", "text": ""})
        if len(self._contents) > self._limit:
            del self._contents[next(iter(self._contents))]

    def forget(self, content_id: str) -> None:
        """Drop a withdrawn content."""
        self._contents.pop(content_id, None)

    def judged(self) -> list[list[Judged]]:
        """The pairs per fingerprint (release, path and set of components), oldest first."""
        found: dict[str, list[Judged]] = {}
        for known in self._contents.values():
            for one in self._of(known):
                found.setdefault(str(one.fingerprint), []).append(one)
        return [sorted(pairs, key=lambda one: one.time) for pairs in found.values()]

    def asked(self) -> list[list[AskedContent]]:
        """The contents that the judge was asked about, per release and set of components, oldest first. Of several
        backends only the one that was asked last: another one's probabilities mean something else."""
        found: dict[str, list[AskedContent]] = {}
        for known in self._contents.values():
            if (one := self._asked(known)) is not None:
                found.setdefault(str(one.fingerprint), []).append(one)
        ordered = (sorted(contents, key=lambda one: one.time) for contents in found.values())
        return [[one for one in contents if one.backend == contents[-1].backend] for contents in ordered]

    def _asked(self, known: _Content) -> AskedContent | None:
        """The content as of the latest decision that carries the judge's answers."""
        counting = [one for one in in_force(known.decisions) if one.mode != "bulk"]
        events = (known.events[one.decision] for one in reversed(counting))
        event = next((one for one in events if one.judged), None)
        if event is None or any(abs(one.score) > MOST_SCORE for one in event.judged):
            return None
        fingerprint = self._fingerprint(event, self._unscored(event, {one.stage for one in event.shown}), JUDGE)
        if fingerprint is None:
            return None
        shown = {one.tag: one for one in event.shown if one.confidence is not None and one.stage != PEOPLE}
        decided = {
            tag: Decided(
                verdict == "accepted", shown[tag].confidence or 0.0, min(1 / shown[tag].propensity, MOST_WEIGHT)
            )
            for tag, verdict in merged(counting).items()
            if tag in shown
        }
        backend = event.versions.backend if event.versions else None
        return AskedContent(event.id, event.time, fingerprint, event.judged, decided, backend)

    def _unscored(self, event: Decision, stages: Set[str]) -> Set[str]:
        """The steps that gave no score. The judge's probability is fused with the score before it, which a learned
        ranker gave if there was one."""
        ranked = event.versions is not None and LEARNT in map(self._steps.get, event.versions.components)
        return UNSCORED if LEARNT in stages or (JUDGE in stages and ranked) else UNSCORED | {LEARNT}

    def _fingerprint(self, event: Decision, unscored: Container[str], *more: str) -> Fingerprint | None:
        """The fingerprint of a decision's scores; None if they are not scores of tagbus. `unscored`: steps of the path
        that gave none; `more`: steps that the content did not take."""
        if event.versions is None:
            return None
        steps = [step for step in event.path if step not in unscored]
        path = [*steps, *(step for step in more if step not in steps)]
        if not (PATH.fullmatch("+".join(path)) and NAME.fullmatch(event.versions.release)):
            return None
        components = {
            name: version for name, version in event.versions.components.items() if self._steps.get(name) in path
        }
        return Fingerprint(event.versions.release, "+".join(path), components)

    def _of(self, known: _Content) -> Iterable[Judged]:
        """A pair for each tag that people agree on, as last shown."""
        counting = [one for one in in_force(known.decisions) if one.mode != "bulk"]
        events = [known.events[one.decision] for one in reversed(counting)]
        for tag, verdict in merged(counting).items():
            seen = ((event, shown) for event in events for shown in event.shown if shown.tag == tag)
            pairs = (self._pair(event, shown, verdict == "accepted") for event, shown in seen)
            yield from islice(filter(None, pairs), 1)

    def _pair(self, event: Decision, shown: ShownTag, right: bool) -> Judged | None:  # noqa: FBT001 - it is a label
        if shown.score is None or shown.confidence is None or shown.stage == PEOPLE or abs(shown.score) > MOST_SCORE:
            return None
        fingerprint = self._fingerprint(event, self._unscored(event, {shown.stage}))
        if fingerprint is None:
            return None
        weight = min(1 / shown.propensity, MOST_WEIGHT)
        return Judged(event.id, event.time, fingerprint, shown.score, shown.confidence, weight, right)


def refit(pairs: Sequence[Judged], old: Calibration | None) -> Refit | None:
    """Fit a curve on the oldest four fifths of the pairs, which are oldest first, and compare it on the rest.

    It is taken only if its loss is less than the old one's, or, if `old` is None, than that of the confidences as
    shown. None with fewer than 200 pairs, or if all are right or all wrong.
    """
    if len(pairs) < SIGMOID_FROM:
        return None
    scores = np.array([one.score for one in pairs])
    right = np.array([one.right for one in pairs])
    weights = np.array([one.weight for one in pairs])
    cut = len(pairs) - max(1, int(len(pairs) * HELD_OUT))
    fit = calibrate.fit if len(pairs) >= ISOTONIC_FROM else calibrate.fit_sigmoid
    contents = len({one.content for one in pairs[:cut]})
    try:
        curve = fit(scores[:cut], right[:cut], pairs[0].fingerprint, contents, weights[:cut])
    except UserError:
        return None
    given = np.array([one.confidence for one in pairs]) if old is None else old.apply(scores)
    old_loss = log_loss(given[cut:], right[cut:], weights[cut:])
    new_loss = log_loss(curve.apply(scores[cut:]), right[cut:], weights[cut:])
    if old is not None and old.judge is not None:
        # The scores were fused by the judge's weight, which stays until it is fitted again.
        curve = calibrate.with_judge(curve, old.judge)
    return Refit(len(pairs), effective_size(weights), old_loss, new_loss, curve if new_loss < old_loss else None)
