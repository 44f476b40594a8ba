"""Publish people's exemplars as decisions: the joiner is the only writer of source `people` on `exemplars`."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final

from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.contract.field_errors import invalid
from tagbus.stream.errors import shorten

# The default for the person behind decisions that are published from a file.
PUBLISHER: Final = "publish"


@dataclass
class Publishing:
    """One run of a command that publishes exemplars of people. Each decision gets a unique id, so that a republished
    file counts again, and of two lines on one content the last one counts."""

    who: str = PUBLISHER
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    numbers: Iterator[int] = field(default_factory=count)

    def decision(self, exemplar: Exemplar) -> Decision:
        """The decision of an exemplar. Raises InvalidEvent as `decision_of` does."""
        return decision_of(exemplar, f"{PUBLISHER}-{self.run}-{next(self.numbers)}", self.who, self.now)


def decision_of(exemplar: Exemplar, decision: str, who: str, now: datetime) -> Decision:
    """The exemplar as a bulk decision with this id. It replaces the same person's earlier decisions on the content.

    `now`: the time of the decision if the exemplar has none. Raises InvalidEvent for a tag that it both accepts and
    rejects.
    """
    accepted, rejected = dict.fromkeys(exemplar.accepted), dict.fromkeys(exemplar.rejected)
    if both := [tag for tag in rejected if tag in accepted]:
        raise invalid("rejected", shorten(both[0]), "no tag that is accepted too")
    return Decision(
        id=exemplar.id,
        decision=decision,
        replaces=True,
        who=who,
        time=exemplar.time or now,
        mode="bulk",
        accepted=tuple(accepted),
        rejected=tuple(rejected),
        title=exemplar.title,
        text=exemplar.text,
        scopes=exemplar.scopes,
    )
