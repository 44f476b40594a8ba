"""Detect a model that changed behind an alias: twenty fixed pairs of a text and a tag, asked again every hour.

A calibration was fitted to the model of the first answers; other answers to the same questions mean another model.
"""

import logging
import time
from typing import Final

import numpy as np

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import shorten
from tagbus.stream.llm.base import Asked, Judged, Question
from tagbus.stream.llm.judge import LlmJudge
from tagbus.stream.telemetry import LLM_DRIFT

log = logging.getLogger(__name__)

# Answers to the same question vary with their batch, by less than this on average.
DRIFT: Final = 0.05
_TEXTS: Final = (
    ("Why do cats purr?", "House cats purr when they are stroked."),
    ("How a nuclear reactor is cooled", "Water carries the heat of fission to the turbines."),
    ("Bread without kneading", "Flour, water, salt and yeast rest overnight before baking."),
    ("The offside rule", "A football player may not wait behind the last defender."),
    ("Mortgage rates rise", "Banks ask for more interest on loans for houses."),
)
_TAGS: Final = (
    ("Cats", "domestic cats"),
    ("Nuclear energy", "electricity by nuclear fission"),
    ("Baking", "bread and cakes"),
    ("Football", "the game, its clubs and its rules"),
)


class Watch:
    """Asks the fixed pairs at intervals, and compares with the first answers."""

    def __init__(self, seconds: float) -> None:
        """`seconds` between two checks; 0: never."""
        self._seconds = seconds
        self._next = time.monotonic()
        self._first: Judged | None = None
        self._probabilities = np.empty(0)

    def due(self) -> bool:
        """Whether a check is due; if so, schedules the next one."""
        now = time.monotonic()
        if not self._seconds or now < self._next:
            return False
        self._next = now + self._seconds
        return True

    async def look(self, judge: LlmJudge) -> float | None:
        """The mean distance of the answers from the first ones; None if they cannot be compared.

        It is on a metric, and a change is a warning that names both models. Raises as LlmJudge.judge does.
        """
        found = await judge.judge(pairs())
        answers = [one.probability for judged in found for one in judged.answers]
        now = np.array([np.nan if one is None else one for one in answers])
        if any(judged.failure for judged in found):
            return None
        if self._first is None:
            self._first, self._probabilities = found[0], now
            return None
        both = np.isfinite(now) & np.isfinite(self._probabilities)
        drift = float(np.abs(now - self._probabilities)[both].mean()) if both.any() else 1.0
        LLM_DRIFT.set(drift)
        if drift > DRIFT or found[0].model != self._first.model:
            log.warning(
                "the language model's answers differ from those at the start by %.2f on average; it reports %s and "
                "reported %s: fit the calibration again",
                *(drift, shorten(found[0].model), shorten(self._first.model)),
            )
        return drift


def pairs() -> list[Asked]:
    """Twenty pairs, by text."""
    questions = tuple(Question(name, name, description) for name, description in _TAGS)
    return [
        Asked(Content(id=f"watch-{number}", title=title, text=text), questions)
        for number, (title, text) in enumerate(_TEXTS)
    ]
