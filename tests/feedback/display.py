"""A simulated display: people judge the tags they are shown, which are not a random sample of the scored ones."""

from datetime import timedelta

import numpy as np

from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.feedback.learning import Judged
from tagbus.stream.feedback.showing import display
from tagbus.stream.quality import Flags, Floats
from tests.feedback.parts import NOON

PRINT = Fingerprint("r-1", "recall+literal", {"literal": "literal-1"})
CONTENTS, CANDIDATES, SLOTS = 12_000, 20, 10


def biased(explore: float, seed: int) -> tuple[list[Judged], Floats, Flags]:
    """Pairs as people see them, and the scores of all candidates with their truth.

    Of two candidates with the same score the one with the better rank in its content is right more often, so what is
    shown is right more often than its score says of all.
    """
    random = np.random.default_rng(seed)
    level = random.random((CONTENTS, 1))
    scores = -np.sort(-(0.7 * level + 0.3 * random.random((CONTENTS, CANDIDATES))), axis=1)
    right = random.random(scores.shape) < scores * (1 - 0.8 * np.arange(CANDIDATES) / CANDIDATES)
    pairs = []
    for number in range(CONTENTS):
        for slot in display(f"content-{number}", CANDIDATES, SLOTS, explore, 0.0)[1]:
            score = float(scores[number, slot.candidate])
            truth = bool(right[number, slot.candidate])
            weight, time = min(1 / slot.propensity, 20.0), NOON + timedelta(seconds=number)
            pairs.append(Judged(f"content-{number}", time, PRINT, score, score, weight, truth))
    return pairs, scores.ravel(), right.ravel()
