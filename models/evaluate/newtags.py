"""New tags: how well tags are found that nothing was trained on, by their names alone and after a few exemplars.

Their annotations are taken out of memory, and out of what heads and ranker were trained on
(`--without FILE` of the training commands). Their names stand in memory, as if they were just published.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.models.data.corpus import Corpus, WithoutTags, without
from tagbus.models.evaluate.rows import MODELS, NEW, Row
from tagbus.models.evaluate.systems import K, settings_of, variables_of, with_components, with_memory
from tagbus.stream.app import console
from tagbus.stream.app.assemble import Brain
from tagbus.stream.app.evaluation import content_of, tag_all
from tagbus.stream.calibrate import uncalibrated
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError
from tagbus.stream.index.apply import MemoryRecord
from tagbus.stream.quality import Ints, Ranked, recall_at

# Exemplars that each new tag has.
STEPS: Final = (0, 1, 5, 20)


class NewTagsByName:
    """A corpus whose new tags are there by name, without a content that carries them."""

    def __init__(self, corpus: Corpus, rest: WithoutTags) -> None:
        self.tags = corpus.tags
        self.exemplars = rest.exemplars


async def measure(corpus: Corpus, file: Path, models: Path, cache: Path) -> dict[str, object]:
    """R@10 in percent of the new tags on the test contents that carry them, for each system and number of exemplars.

    Raises UserError where the file names no tags, or no test content carries one.
    """
    rest = without(corpus, file)
    if not isinstance(rest, WithoutTags) or not rest.left_out:
        raise UserError(f"{file}: no tags, expected their ids, one a line")
    new = rest.left_out
    test = [item for item in corpus.exemplars("test") if new.intersection(item.accepted)]
    if not test:
        raise UserError(f"{file}: no test content carries one of these tags")
    added = first_exemplars(corpus, new)
    rows = []
    for row in NEW:
        if (missing := _missing(row, models)) is not None:
            console.say(f"{row.name}: {missing} is not there, so new tags are not measured with it")
            continue
        rows.append({"name": row.name, "what": row.what, **await _row(row, corpus, rest, test, added, models, cache)})
    return {"tags": len(new), "contents": len(test), "rows": rows}


def first_exemplars(corpus: Corpus, new: frozenset[str]) -> list[dict[str, Exemplar]]:
    """For each of STEPS the training contents that change, by id, with the new tags that they carry then: each new tag
    stands on the first so many of its contents."""
    carried: dict[str, list[str]] = {tag: [] for tag in sorted(new)}
    whole: dict[str, Exemplar] = {}
    for item in corpus.exemplars("train"):
        for tag in new.intersection(item.accepted):
            if len(carried[tag]) < max(STEPS):
                carried[tag].append(item.id)
                whole[item.id] = item
    found = []
    for step in STEPS:
        shown = {(tag, content) for tag, contents in carried.items() for content in contents[:step]}
        changed = {}
        for name, item in whole.items():
            if any((tag, name) in shown for tag in item.accepted):
                kept = tuple(tag for tag in item.accepted if tag not in new or (tag, name) in shown)
                changed[name] = item.model_copy(update={"accepted": kept})
        found.append(changed)
    return found


def _missing(row: Row, models: Path) -> str | None:
    paths = [name for name, value in row.settings.items() if MODELS in value]
    return next((place for name in paths if not Path(place := variables_of(row, models)[name]).exists()), None)


async def _row(
    row: Row,
    corpus: Corpus,
    rest: WithoutTags,
    test: Sequence[Exemplar],
    added: Sequence[Mapping[str, Exemplar]],
    models: Path,
    cache: Path,
) -> dict[str, object]:
    found: dict[str, object] = {}
    settings = settings_of(row, models)
    async with (
        with_memory(settings, NewTagsByName(corpus, rest), cache) as bare,
        with_components(bare, settings) as brain,
    ):
        for step, changed in zip(STEPS, added, strict=True):
            records = [MemoryRecord("exemplars", encode_record(item), name) for name, item in changed.items()]
            await brain.projection().apply(records)
            found[f"r_at_10_after_{step}"] = round(await _recall(brain, test, rest.left_out), 2)
            console.say(f"{row.name}, {step} exemplars: {found[f'r_at_10_after_{step}']}")
    return found


async def _recall(brain: Brain, test: Sequence[Exemplar], new: frozenset[str]) -> float:
    numbers = {tag: number for number, tag in enumerate(sorted(new))}
    tagger = brain.tagger(uncalibrated(brain.pipeline.name))
    with console.bar("tagging", len(test)) as bar:
        results = await tag_all(tagger, [content_of(item) for item in test], bar.advance)
    # Whatever is no new tag takes a place and is never right.
    indices = np.full((len(results), K), -1, np.int64)
    for row, result in enumerate(results):
        for column, tag in enumerate(result.tags[:K]):
            indices[row, column] = numbers.get(tag.id, len(numbers) + column)
    truth: list[Ints] = [np.array(sorted(numbers[tag] for tag in new.intersection(item.accepted))) for item in test]
    return recall_at(Ranked(indices, np.zeros(indices.shape)), truth, K)


def markdown(report: Mapping[str, object]) -> str:
    """The table for a page."""
    rows = report["rows"]
    lines = [f"| row | {' | '.join(map(str, STEPS))} |", "| --- |" + " --- |" * len(STEPS)]
    lines += [
        f"| {row['name']} | " + " | ".join(str(row[f"r_at_10_after_{step}"]) for step in STEPS) + " |"
        for row in (rows if isinstance(rows, list) else [])
    ]
    return "\n".join(lines)
