"""Training examples of the judge: people's decisions, each as the judge's prompt and the right answer.

Read from the topic `feedback`, or a file in the same format. Decisions are merged as the joiner merges them, so undone
and open ones give no example. Near-duplicates add little, so contents are sampled by farthest-first traversal of their
vectors (k-center greedy: Sener and Savarese, ICLR 2018, arXiv 1708.00489), as LLM4Tag samples for diversity.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data.splits import Split, split_of
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_decision
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.errors import Poison
from tagbus.stream.feedback.history import History, after, exemplar
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_all
from tagbus.stream.llm.base import Asked, Question
from tagbus.stream.llm.judge import TEMPLATE
from tagbus.stream.llm.prompts import Prompts, tokens

TOPIC: Final = "topic"
# Most bytes of the decisions on one content.
LIMIT: Final = 1_000_000

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Example:
    """A question about one tag of one content, as a chat, and whether the tag is right."""

    content: str
    task: str
    question: str
    right: bool


def decisions(place: str, settings: Settings) -> Iterator[tuple[str, Decision | None]]:
    """Yield content id and decision, in the order of the log; None: the content was withdrawn.

    `place`: a file with one decision per line, or `topic`. Raises UserError that names the line, and
    as `read_all` does.
    """
    if place != TOPIC:
        for decision in files.all_of(Path(place), files.decision_of):
            yield decision.id, decision
        return
    for message in read_all(settings.kafka, settings.topics.feedback):
        try:
            event = decode_decision(record_of(message))
        except Poison:
            continue
        if isinstance(event, Tombstone):
            yield event.key, None
        else:
            yield event.id, event


def decided(log: Iterable[tuple[str, Decision | None]]) -> list[Exemplar]:
    """Return the agreed decisions on contents whose text is known, in the order of their first decision."""
    histories: dict[str, History] = {}
    for content_id, decision in log:
        if decision is None:
            histories.pop(content_id, None)
        else:
            histories[content_id] = after(histories.get(content_id, History()), decision, LIMIT)
    found = (exemplar(content_id, history) for content_id, history in histories.items())
    return [one for one in found if one is not None]


def split(items: Sequence[Exemplar], wanted: Split) -> list[Exemplar]:
    """Return the contents of a split, by a hash of their ids."""
    return [one for one in items if split_of(one.id) == wanted]


def diverse(vectors: Vectors, count: int, seed: int) -> list[int]:
    """Return at most `count` rows of unit vectors [n, d] by farthest-first traversal from a random one."""
    rows = len(vectors)
    if count >= rows:
        return list(range(rows))
    taken = [int(np.random.default_rng(seed).integers(rows))]
    nearest = vectors @ vectors[taken[0]]
    while len(taken) < count:
        nearest[taken[-1]] = np.inf
        taken.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[taken[-1]])
    return taken


def examples(items: Iterable[Exemplar], tags: Mapping[str, Tag], prompts: Prompts) -> Iterator[Example]:
    """Yield each accepted or rejected tag of the taxonomy, as the judge would ask about it."""
    for item in items:
        asked = Asked(Content(id=item.id, title=item.title, text=item.text), ())
        for tag_id, right in (*((tag, True) for tag in item.accepted), *((tag, False) for tag in item.rejected)):
            if (tag := tags.get(tag_id)) is None:
                continue
            question = prompts.yes_no(Question(tag.id, tag.name, tag.description))
            rendered = prompts.render(asked, tokens(question) + TEMPLATE)
            yield Example(item.id, rendered.task, f"{rendered.context}\n\n{question}", right)
