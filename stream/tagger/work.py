"""One content on its way through the stages, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.contract.events import Content, Degraded, ScoredTag, TaggedContent
from tagbus.stream.errors import Poison
from tagbus.stream.memory.store import Payload
from tagbus.stream.rank.candidates import Scored
from tagbus.stream.recall.graph import Candidate, Found
from tagbus.stream.recall.neighbours import Seen

# What one recaller found for one content: tag ids with its scores, best first.
Listing = Mapping[str, float]

# Of Work.path: steps that change no score.
UNSCORED: Final = frozenset({"prepare", "encode", "select", "calibrate"})
# The stage `rank`, and what gave the scores where a learnt ranker did.
LEARNT: Final = "rank"


@dataclass(frozen=True, slots=True)
class Failure:
    """A content that can never be tagged, and why."""

    id: str
    error: Poison


@dataclass(frozen=True, slots=True)
class Delayed:
    """A content that a stage wants to see again after so many seconds; nothing has been decided about it."""

    id: str
    seconds: float
    reason: str


# What becomes of a content.
Outcome = TaggedContent | Failure | Delayed


class Ranking(Protocol):
    """One content's candidates in an order; `stage` is what gave the scores."""

    @property
    def stage(self) -> str: ...

    def best(self, count: int) -> Found:
        """At least the `count` best with their scores, and what memory says for them."""

    def features(self, tag_id: str) -> Mapping[str, float] | None:
        """What a ranker saw of one of the best, by column; None without one."""


@dataclass(slots=True, eq=False)
class Work:
    """A content and what the stages have found out about it. A stage reads what earlier ones left and adds its own.

    `deadline` is on time.monotonic(). `seen` and `found` are recall's: what memory holds around it, and each other
    recaller's list. `scored` are a learnt ranker's candidates as arrays, `ranking` is the order that counts so far.
    `payloads` holds the tags in force that the batch asks about, `names` those that this content sees. `candidates` are
    selected with their evidence, `tags` are calibrated, by the curve that `calibration` names. `path` lists the stages
    and components that it went through, `degraded` those that were skipped. A content with an `outcome` takes no
    further
    part.
    """

    content: Content
    deadline: float | None = None
    text: str = ""
    vector: NDArray[np.float32] | None = None
    seen: Seen | None = None
    found: Mapping[str, Listing] = field(default_factory=dict)
    payloads: Mapping[str, Payload] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    scored: Scored | None = None
    ranking: Ranking | None = None
    candidates: Sequence[Candidate] = ()
    tags: tuple[ScoredTag, ...] = ()
    calibration: str | None = None
    path: list[str] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """Of the content: what it sees shares one of them, or has none."""
        return frozenset(self.content.scopes)

    def fail(self, error: Poison) -> None:
        """This content can never be tagged."""
        self.outcome = Failure(self.content.id, error)

    def delay(self, seconds: float, reason: str) -> None:
        """This content is to be tagged later, from the beginning."""
        self.outcome = Delayed(self.content.id, seconds, reason)

    def skip(self, stage: str, reason: str) -> None:
        """This content goes on without a stage; the result says so."""
        self.degraded.append(Degraded(stage=stage, reason=reason))

    @property
    def scoring(self) -> str:
        """The steps that gave its scores, as a calibration names them: `recall+literal+rank`; without a learnt ranker
        the order is recall's."""
        learnt = self.ranking is not None and self.ranking.stage == LEARNT
        return "+".join(step for step in self.path if step not in UNSCORED and (learnt or step != LEARNT))


class Stage(Protocol):
    """One step of the pipeline over the contents of a batch that still take part.

    It may fail, skip or delay one content alone (`Work.fail`, `skip`, `delay`); `name` joins the path of all others.
    """

    name: str

    async def run(self, works: Sequence[Work]) -> None:
        """Raises Retryable where a dependency does not answer, and decides nothing then; Fatal."""
