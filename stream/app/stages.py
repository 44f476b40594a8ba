"""The stages of the pipeline, in the order of the arrows in DESIGN.

To add a stage, write a class with `name` and `run` (tagger/work.py) and add a line to `STAGES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tagbus.stream.config import Settings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.memory import Memory
from tagbus.stream.memory.kinds import KNOWLEDGE
from tagbus.stream.rank import cross_encoder, trees
from tagbus.stream.rank.cross_encoder import CrossEncoderPart
from tagbus.stream.rank.trees import RankerPart
from tagbus.stream.recall.component import Part
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.knowledge import KnowledgeRetrieval
from tagbus.stream.recall.pool import Numbers
from tagbus.stream.tagger.cross_encode import CrossEncode
from tagbus.stream.tagger.encode import Encode
from tagbus.stream.tagger.judge import JudgeStage, Judging
from tagbus.stream.tagger.knowledge import Retrieve
from tagbus.stream.tagger.prepare import Prepare
from tagbus.stream.tagger.rank import Fuse, Rank
from tagbus.stream.tagger.recall import Recall
from tagbus.stream.tagger.work import Stage

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """The inputs of every stage factory.

    `parts`: by component name. `numbers`: the ranker's number of each tag. `reads`: kinds of memory that are read for a
    content besides those that recall searches. `judging`: the language model that the judge asks.
    """

    settings: Settings
    encoder: Encoder
    memory: Memory
    graph: GraphRecall
    parts: Mapping[str, Part]
    numbers: Numbers
    reads: frozenset[str]
    judging: Judging | None = None

    def part(self, name: str, kind: type[P]) -> P | None:
        """The part of a component; None if it is off."""
        part = self.parts.get(name)
        return part if isinstance(part, kind) else None


# Makes a stage; None if its component is off.
StageFactory = Callable[[Ingredients], Stage | None]


def _recall(made: Ingredients) -> Stage:
    recallers = {name: part.recallers for name, part in made.parts.items() if part.recallers}
    ranked = made.part(trees.NAME, RankerPart)
    return Recall(made.graph, recallers, None if ranked is None else ranked.ranker.reach)


def _rank(made: Ingredients) -> Stage:
    ranked = made.part(trees.NAME, RankerPart)
    return Fuse(made.graph) if ranked is None else Rank(made.graph, ranked.ranker, made.numbers)


def _cross_encode(made: Ingredients) -> Stage | None:
    ranked, reading = made.part(trees.NAME, RankerPart), made.part(cross_encoder.NAME, CrossEncoderPart)
    if ranked is None or reading is None or ranked.ranker.second_stage is None:
        return None
    return CrossEncode(cross_encoder.NAME, reading.cross_encoder, ranked.ranker.second_stage, made.numbers)


def _knowledge(made: Ingredients) -> Stage | None:
    settings = made.settings
    if KNOWLEDGE.name not in made.reads or not settings.knowledge.segments:
        return None
    store, release = made.memory.stores[KNOWLEDGE.name], made.encoder.release
    return Retrieve(KnowledgeRetrieval(store, settings.knowledge, release.recall))


def _judge(made: Ingredients) -> Stage | None:
    return None if made.judging is None else JudgeStage(made.judging)


STAGES: Final[Sequence[StageFactory]] = (
    lambda _: Prepare(),
    lambda made: Encode(made.encoder),
    _recall,
    _rank,
    _cross_encode,
    _knowledge,
    _judge,
)
