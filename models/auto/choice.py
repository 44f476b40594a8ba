"""Which trainings fit: a rule a training, with what it is expected to take and why it is chosen or not.

Seconds are of one core, from the trainings on YSO's titles (docs/training.md, Cost), rounded up.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from tagbus.models.auto.facts import Facts
from tagbus.models.train.whole.plan import NAMES

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
# Of six layers on a CPU with bfloat16 products, a text and an epoch, evaluations included. A tag's text is a content
# twice an epoch.
WHOLE_CPU_SECONDS: Final = 6e-3
WHOLE_CPU_EPOCHS: Final = 5
# GB that this takes: 16.3 were measured with 24,813 tags and batches of 1,024 texts. A tag's share is computed: four
# times its scores of a batch, and its vector, gradient, two moments, average and copy, all in float32.
WHOLE_GB: Final = 17.0
WHOLE_TAG_GB: Final = 25e-6
# Fewer contents were not tried on a CPU (328,152 were), where it takes the place of what is known to gain.
WHOLE_CPU_LEAST: Final = 100_000
# What is left out beside an encoder that is trained whole. Over one of two layers heads have P@1 42.9 on validation
# titles, and its tag vectors 43.9.
REPLACED: Final[Mapping[Name, str]] = {
    "heads": "the encoder is trained whole, and its tag vectors say more",
    "second_encoder": "the encoder itself is trained whole",
}
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
    """What is trained, for how many known contents, and whether on a GPU. `ranked`: what the ranker learns from, empty
    without one."""

    model_config = ConfigDict(frozen=True)

    contents: int
    parts: tuple[Part, ...]
    ranked: Ranked
    gpu: bool = False

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
        chosen = {one.name for one in found if one.chosen}
        if part.chosen and (why := _against(part, facts, left, whole="whole" in chosen)):
            part = part.model_copy(update={"chosen": False, "why": why})
        if part.chosen:
            left -= part.seconds
        found.append(part)
    return _learning(Choice(contents=facts.contents, parts=tuple(found), ranked="", gpu=gpu), facts)


def _against(part: Part, facts: Facts, left: float, *, whole: bool) -> str:
    """Why a part is left out after all, or nothing. `whole`: the encoder is trained whole."""
    if facts.tags < TAGS and part.name != "encoder":
        return "a single tag leaves nothing to choose among"
    if whole and part.name in REPLACED:
        return REPLACED[part.name]
    return "" if part.seconds <= left else f"it does not fit: {_time(left)} are left"


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
    heads = HEADS_START + HEADS_SECONDS * EPOCHS * facts.contents * facts.tags
    folds = _ranked(facts) == "folds"
    # One in four validation contents is left for the selection.
    learnt = facts.contents if folds else facts.validation * 3 // 4
    ranker = learnt * (RANKER_SECONDS + SEARCH_SECONDS * facts.contents) + (FOLDS * heads if folds else 0)
    less = f"{known} are less than {LEAST}: memory alone tags better"
    # On a GPU the encoder takes minutes, on a CPU hours, of which the ranker comes first.
    on_gpu = (_whole(facts, known),) if gpu else ()
    on_cpu = () if gpu else (_whole_on_cpu(facts, known),)
    return (
        Part(name="encoder", chosen=True, seconds=RENAME_SECONDS, why="every release has one: the packaged encoder"),
        *on_gpu,
        Part(
            name="ranker",
            chosen=not few and learnt > 0,
            seconds=memory + ranker,
            why=less if few else f"it orders what is found; it learns from {learnt:,} {_source(facts)}",
        ),
        *on_cpu,
        Part(name="heads", chosen=not few, seconds=heads, why=less if few else f"they memorise {known}"),
        Part(
            name="labeltree",
            chosen=large and facts.omikuji,
            seconds=HEADS_START + TREES_SECONDS * facts.contents,
            why=_trees(facts, known),
        ),
        Part(
            name="second_encoder",
            chosen=large,
            seconds=EXPORT_SECONDS + memory + LAYERS_SECONDS * facts.contents,
            why=f"it learns what {known} have in common" if large else f"{known} are less than {LARGE:,}",
        ),
    )


def _whole(facts: Facts, known: str) -> Part:
    """The encoder, trained whole."""
    large = facts.contents >= LARGE
    return Part(
        name="whole",
        chosen=large,
        seconds=EXPORT_SECONDS + WHOLE_START + WHOLE_SECONDS * facts.contents,
        why=f"all its layers learn {known}, on the GPU" if large else f"{known} are less than {LARGE:,}",
    )


def _whole_on_cpu(facts: Facts, known: str) -> Part:
    """The same without a GPU."""
    texts = facts.contents + NAMES * facts.tags
    needed = round(WHOLE_GB + WHOLE_TAG_GB * facts.tags, 1)
    if facts.contents < WHOLE_CPU_LEAST:
        why = f"without --gpu it takes {WHOLE_CPU_LEAST:,} contents or more, and {facts.contents:,} are known"
    elif not facts.validation:
        why = "without validation contents nothing says which epoch is best"
    elif not facts.bfloat16:
        why = "this processor has neither AVX512-BF16 nor AMX, without which it takes twice as long"
    elif facts.free_gb < needed:
        why = f"it takes {needed:g} GB of memory, and {facts.free_gb:g} are free"
    else:
        return _whole(facts, known).model_copy(
            update={
                "seconds": EXPORT_SECONDS + WHOLE_START + WHOLE_CPU_SECONDS * WHOLE_CPU_EPOCHS * texts,
                "why": f"all its layers learn {known}",
            }
        )
    return Part(name="whole", chosen=False, seconds=0.0, why=why)


def _trees(facts: Facts, known: str) -> str:
    if facts.contents < LARGE:
        return f"{known} are less than {LARGE:,}"
    return f"they find by words, over {known}" if facts.omikuji else "omikuji is not installed: tagbus[trees]"


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
