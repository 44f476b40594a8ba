"""The state of one content on its way through the stages, and its outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.contract.events import Content, Degraded, ScoredTag, TaggedContent, Usage
from tagbus.stream.errors import Poison
from tagbus.stream.memory.store import Payload
from tagbus.stream.rank.candidates import Scored
from tagbus.stream.recall.graph import Candidate, Found
from tagbus.stream.recall.knowledge import Segment
from tagbus.stream.recall.neighbours import Seen

# One recaller's result for one content: tag ids with its scores, best first.
Listing = Mapping[str, float]

# The stage that drops or adds broader tags, and the `stage` of added ones.
HIERARCHY: Final = "hierarchy"
# Steps of Work.path that change no score.
UNSCORED: Final = frozenset({"prepare", "encode", "knowledge", "select", "calibrate", HIERARCHY})
# The stage `rank`, and the `stage` of scores by a learned ranker.
LEARNT: Final = "rank"


@dataclass(frozen=True, slots=True)
class Failure:
    """A content that can never be tagged, and the reason."""

    id: str
    error: Poison


@dataclass(frozen=True, slots=True)
class Delayed:
    """A content that a stage defers by `seconds`, still undecided."""

    id: str
    seconds: float
    reason: str


# The outcome of a content.
Outcome = TaggedContent | Failure | Delayed


class Ranking(Protocol):
    """One content's candidates in order; `stage` names what scored them."""

    @property
    def stage(self) -> str: ...

    def best(self, count: int) -> Found:
        """At least the `count` best with their scores and memory's evidence."""

    def features(self, tag_id: str) -> Mapping[str, float] | None:
        """The ranker's features of one of the best, by column; None without a ranker."""

    def unjudged(self, tag_id: str) -> float | None:
        """The score of the stages before the judge, if its probability was fused with it."""


@dataclass(slots=True, eq=False)
class Work:
    """A content and what the stages have added to it. A stage reads the results of earlier ones and adds its own.

    `deadline` is on time.monotonic(). `seen` and `found` come from recall: the content's neighbourhood in memory, and
    the list of each other recaller. `scored` holds a learned ranker's candidates as arrays, `ranking` the current
    order. `payloads` holds the tags in force that the batch needs, `names` those visible to this content. `knowledge`
    is for prompts and empty if nothing reads it. `candidates` are selected with their evidence; `tags` are calibrated
    by the curve named in `calibration`. `path` lists the stages and components that it went through, `degraded` those
    that were skipped, `left_out` those that had nothing to do. `prompt`, `llm` and `backend` name the prompt, the
    language model and how it was asked; `usage` is what the calls consumed. A content with an `outcome` is not
    processed further.
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
    knowledge: Sequence[Segment] = ()
    candidates: Sequence[Candidate] = ()
    tags: tuple[ScoredTag, ...] = ()
    calibration: str | None = None
    path: list[str] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    prompt: str | None = None
    llm: str | None = None
    backend: str | None = None
    usage: Usage | None = None
    outcome: Outcome | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """The content's scopes: it sees items that share one of them or have none."""
        return frozenset(self.content.scopes)

    def fail(self, error: Poison) -> None:
        """Mark this content as one that can never be tagged."""
        self.outcome = Failure(self.content.id, error)

    def delay(self, seconds: float, reason: str) -> None:
        """Defer this content; it is then tagged again from the first stage."""
        self.outcome = Delayed(self.content.id, seconds, reason)

    def skip(self, stage: str, reason: str) -> None:
        """Continue this content without a stage and record that in the result."""
        self.degraded.append(Degraded(stage=stage, reason=reason))

    def leave_out(self, stage: str) -> None:
        """Note that a stage had nothing to do for this content: its path omits it, and nothing is missing."""
        self.left_out.add(stage)

    def saved(self) -> "Work":
        """A copy of what the stages have added so far."""
        return replace(self, path=list(self.path), degraded=list(self.degraded), left_out=set(self.left_out))

    def restore(self, saved: "Work") -> None:
        """Undo additions since `saved`."""
        for one in fields(self):
            setattr(self, one.name, getattr(saved, one.name))

    @property
    def scoring(self) -> str:
        """The steps that scored it, as a calibration names them: `recall+literal+rank`. Without a learned ranker the
        order is recall's."""
        learned = self.scored is not None
        return "+".join(step for step in self.path if step not in UNSCORED and (learned or step != LEARNT))


class Stage(Protocol):
    """One step of the pipeline over the contents of a batch that have no outcome yet.

    It may fail, skip or delay single contents (`Work.fail`, `skip`, `delay`); `name` joins the path of all others.
    """

    name: str

    async def run(self, works: Sequence[Work]) -> None:
        """Process the works. Raises Retryable if a dependency does not answer, leaving them undecided; Fatal."""
