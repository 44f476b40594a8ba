"""Stage `calibrate`: the probability that each selected tag is right, by the curve of the path taken."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.events import ScoredTag
from tagbus.stream.recall.graph import Candidate
from tagbus.stream.tagger.work import Work

# Decisions by people get the highest confidence, which must stay inside (0, 1).
DECIDED: Final = 0.9999


class Calibrate:
    """Scores to confidences. A curve is fitted to the scores of one path: if a stage was skipped, the curve of the
    shorter path applies, never the one fitted to the scores of the skipped stage."""

    name = "calibrate"

    def __init__(self, curves: Callable[[str], Calibration], least_confidence: float) -> None:
        """`curves` returns the calibration for a path (`Work.scoring`). Tags below `least_confidence` are dropped."""
        self._curves = curves
        self._least = least_confidence

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        for work in works:
            if not work.candidates:
                # No candidates, or the caller stopped before scoring.
                continue
            curve = self._curves(work.scoring)
            scores = np.array([one.score for one in work.candidates], np.float64)
            tags = map(_tag, work.candidates, curve.apply(scores).tolist())
            work.calibration = curve.name
            work.tags = tuple(tag for tag in tags if tag.confidence >= self._least)


def _tag(candidate: Candidate, confidence: float) -> ScoredTag:
    decided = candidate.evidence.decided
    return ScoredTag(
        id=candidate.id,
        name=candidate.name,
        names=dict(candidate.names),
        score=round(candidate.score, 6),
        confidence=DECIDED if decided else round(confidence, 4),
        stage="people" if decided else candidate.stage,
        evidence=candidate.evidence,
    )
