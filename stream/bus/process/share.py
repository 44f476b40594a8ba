"""How much of what came last was set aside: beyond a share it is not the contents that are bad."""

from collections import Counter, deque
from collections.abc import Iterable

from tagbus.stream import telemetry
from tagbus.stream.bus.in_flight import RecordOutcome
from tagbus.stream.bus.process.versions import STAGE
from tagbus.stream.config import TriageSettings
from tagbus.stream.errors import TooMuchPoison


class PoisonShare:
    """The last contents that were decoded and tagged, or could not be. Belongs to the publish thread."""

    def __init__(self, settings: TriageSettings) -> None:
        self._share = settings.poison_share
        self._window = settings.poison_window
        # The stage that refused it, or nothing; each of the last contents.
        self._last: deque[str] = deque()
        self._stages: Counter[str] = Counter()

    def count(self, outcomes: Iterable[RecordOutcome]) -> None:
        """Take in what is committed: whatever is raised here, these dead letters are out and are never read again.

        Stale events, withdrawals and answers from the cache say nothing about the tagger and do not count. Nothing is
        raised before the window is full: of the first ten contents of a new topic three may well be bad.
        Raises TooMuchPoison.
        """
        for outcome in outcomes:
            if outcome.kind == "tagged" or (outcome.kind == "dead_lettered" and outcome.stage != STAGE):
                self._last.append(outcome.stage)
                if outcome.stage:
                    self._stages[outcome.stage] += 1
                if len(self._last) > self._window and (gone := self._last.popleft()):
                    self._stages[gone] -= 1
        self._check()

    def _check(self) -> None:
        bad, number = self._stages.total(), len(self._last)
        telemetry.POISON_SHARE.set(bad / number if number else 0.0)
        if number >= self._window and bad > self._share * self._window:
            stages = ", ".join(f"{stage} {count}" for stage, count in self._stages.most_common() if count)
            raise TooMuchPoison(
                f"{bad} of the last {number} contents were set aside ({stages}), more than triage.poison_share = "
                f"{self._share:g}: look at the reasons in the dead letters before it is started again"
            )
