"""Which trainings fit: a rule a training, with what it is expected to take and why it is chosen or not.

Seconds are of one core, from the trainings on YSO's titles (docs/training.md, Cost), rounded up.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from tagbus.models.auto.facts import Facts

Name = Literal["encoder", "whole", "heads", "labeltree", "second_encoder", "ranker"]
# What a ranker learns from: contents that were held out, or training contents, fold by fold.
Ranked = Literal["validation", "folds", ""]

# Fewer known contents than that say nothing of most tags.
LEAST: Final = 200
# Fewer tags than that have no order, and no wrong one to fit a confidence to.
TAGS: Final = 2
# Fewer validation contents than that are too few for a ranker; folds of the training contents take their place.
HELD_OUT: Final = 2_000
# From that many training contents on, fold by fold takes too long.
FOLDED: Final = 20_000
FOLDS: Final = 4
# Label trees and a second encoder gain where words and tags are many: from that many contents on.
LARGE: Final = 20_000

RENAME_SECONDS: Final = 1.0
EXPORT_SECONDS: Final = 40.0
HEADS_START: Final = 20.0
# Of a step of heads, a content and a tag; of trees and of two trained layers, a content over all epochs.
HEADS_SECONDS: Final = 7e-8
EPOCHS: Final = 3
TREES_SECONDS: Final = 1.7e-3
LAYERS_SECONDS: Final = 11e-3
# Of six layers on a GPU, a content over all epochs: 166 s of an H100 for 328,082 (bench/results/encoder-training.json).
WHOLE_START: Final = 60.0
WHOLE_SECONDS: Final = 1e-3
# Of a ranker, a content that it learns from; of a search, a content and a content in memory.
RANKER_SECONDS: Final = 20e-3
SEARCH_SECONDS: Final = 2e-8


class Part(BaseModel):
    """A training, the seconds that it is expected to take, and why it is part of the run, or is not."""

    model_config = ConfigDict(frozen=True)

    name: Name
    chosen: bool
    seconds: float
    why: str


class Choice(BaseModel):
    """What is trained, for how many known contents. `ranked`: what the ranker learns from, empty without one."""

    model_config = ConfigDict(frozen=True)

    contents: int
    parts: tuple[Part, ...]
    ranked: Ranked

    def has(self, name: Name) -> bool:
        """Whether a training was chosen."""
        return any(part.chosen and part.name == name for part in self.parts)

    @property
    def seconds(self) -> float:
        """What all of it is expected to take."""
        return sum(part.seconds for part in self.parts if part.chosen)


def choose(facts: Facts, minutes: float, *, gpu: bool = False) -> Choice:
    """The most useful trainings that fit into the time, in the order of what they gain on YSO's titles."""
    left = 60.0 * minutes
    found: list[Part] = []
    for part in _wanted(facts, gpu=gpu):
        if facts.tags < TAGS and part.name != "encoder":
            part = part.model_copy(update={"chosen": False, "why": "a single tag leaves nothing to choose among"})
        fits = part.seconds <= left
        if part.chosen and not fits:
            part = part.model_copy(update={"chosen": False, "why": f"it does not fit: {_time(left)} are left"})
        if part.chosen:
            left -= part.seconds
        found.append(part)
    return _learning(Choice(contents=facts.contents, parts=tuple(found), ranked=""), facts)


def _learning(choice: Choice, facts: Facts) -> Choice:
    """With what the ranker learns from, or without the ranker where there is nothing."""
    if not choice.has("ranker"):
        return choice
    # Folds are what heads are trained without.
    ranked = "folds" if _ranked(facts) == "folds" and choice.has("heads") else "validation"
    if ranked == "folds" or facts.validation:
        return choice.model_copy(update={"ranked": ranked})
    left = {"chosen": False, "why": "it has no validation contents to learn from, and no heads to leave folds out of"}
    parts = tuple(part.model_copy(update=left) if part.name == "ranker" else part for part in choice.parts)
    return choice.model_copy(update={"parts": parts})


def _wanted(facts: Facts, *, gpu: bool) -> Sequence[Part]:
    """All trainings, most useful first, as if time did not matter."""
    few = facts.contents < LEAST
    known = f"{facts.contents:,} known contents"
    large = facts.contents >= LARGE
    memory = _encoding(facts)
    whole = _whole(facts, known) if gpu else None
    heads = HEADS_START + HEADS_SECONDS * EPOCHS * facts.contents * facts.tags
    folds = _ranked(facts) == "folds"
    # One in four validation contents is left for the selection.
    learnt = facts.contents if folds else facts.validation * 3 // 4
    ranker = learnt * (RANKER_SECONDS + SEARCH_SECONDS * facts.contents) + (FOLDS * heads if folds else 0)
    less = f"{known} are less than {LEAST}: memory alone tags better"
    return (
        Part(name="encoder", chosen=True, seconds=RENAME_SECONDS, why="every release has one: the packaged encoder"),
        *((whole,) if whole is not None else ()),
        Part(
            name="ranker",
            chosen=not few and learnt > 0,
            seconds=memory + ranker,
            why=less if few else f"it orders what is found; it learns from {learnt:,} {_source(facts)}",
        ),
        Part(name="heads", chosen=not few, seconds=heads, why=less if few else f"they memorise {known}"),
        Part(
            name="labeltree",
            chosen=large and facts.omikuji,
            seconds=HEADS_START + TREES_SECONDS * facts.contents,
            why=_trees(facts, known),
        ),
        Part(
            name="second_encoder",
            chosen=large and not (whole is not None and whole.chosen),
            seconds=EXPORT_SECONDS + memory + LAYERS_SECONDS * facts.contents,
            why=_second(facts, whole, known),
        ),
    )


def _whole(facts: Facts, known: str) -> Part:
    """The encoder, trained whole. What folds are left out of it would take as often as there are folds."""
    held_out = _ranked(facts) == "validation"
    if facts.contents < LARGE:
        why = f"{known} are less than {LARGE:,}"
    elif not held_out:
        why = f"a ranker over it needs {HELD_OUT:,} validation contents"
    else:
        why = f"all its layers learn {known}, on the GPU"
    return Part(
        name="whole",
        chosen=facts.contents >= LARGE and held_out,
        seconds=EXPORT_SECONDS + WHOLE_START + WHOLE_SECONDS * facts.contents,
        why=why,
    )


def _trees(facts: Facts, known: str) -> str:
    if facts.contents < LARGE:
        return f"{known} are less than {LARGE:,}"
    return f"they find by words, over {known}" if facts.omikuji else "omikuji is not installed: tagbus[trees]"


def _second(facts: Facts, whole: Part | None, known: str) -> str:
    if facts.contents < LARGE:
        return f"{known} are less than {LARGE:,}"
    if whole is not None and whole.chosen:
        return "the encoder itself is trained whole"
    return f"it learns what {known} have in common"


def _ranked(facts: Facts) -> Ranked:
    return "folds" if facts.validation < HELD_OUT and facts.contents < FOLDED else "validation"


def _source(facts: Facts) -> str:
    return "training contents, fold by fold" if _ranked(facts) == "folds" else "validation contents"


def _encoding(facts: Facts) -> float:
    """Seconds that encoding all texts takes."""
    return (facts.tags + facts.contents + facts.validation + facts.test) / max(1.0, facts.texts_a_second)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes"


def explained(choice: Choice, facts: Facts, minutes: float) -> Iterator[str]:
    """The choice in words, a line a training."""
    yield (
        f"{facts.tags:,} tags, {facts.contents:,} training, {facts.validation:,} validation and {facts.test:,} test "
        f"contents; the encoder takes {facts.texts_a_second:g} of these texts a CPU second here"
    )
    for part in choice.parts:
        mark = "trained" if part.chosen else "left out"
        cost = f", about {_time(part.seconds)}" if part.chosen else ""
        yield f"{mark}: {part.name.replace('_', ' ')}{cost}; {part.why}"
    yield f"about {_time(choice.seconds)} of {minutes:g} in all, on one core"
