"""New tags: recall of tags without any training data, by name alone and after a few exemplars.

Their annotations are in neither memory nor the training data of heads and ranker (`--without FILE` of the training
commands). Their names are in memory, as if they had just been published.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.models.data.corpus import Corpus, WithoutTags, without
from tagbus.models.evaluate.rows import MODELS, NEW, Row
from tagbus.models.evaluate.systems import K, settings_of, variables_of, with_memory
from tagbus.stream.app import assemble, console
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.evaluation import content_of, ran, tag_all
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError
from tagbus.stream.index.apply import MemoryRecord
from tagbus.stream.quality import Ints, Ranked, recall_at

# Exemplars per new tag.
STEPS: Final = (0, 1, 5, 20)


class NewTagsByName:
    """A corpus with all tags, but without the annotations of the new ones."""

    def __init__(self, corpus: Corpus, rest: WithoutTags) -> None:
        self.tags = corpus.tags
        self.exemplars = rest.exemplars


async def measure(
    corpus: Corpus, file: Path, models: Path, cache: Path, names: Collection[str] = ()
) -> dict[str, object]:
    """Measure R@10 in percent of the new tags on the test contents that have one, by system and number of exemplars.

    `names`: the rows to measure; empty: all whose models are there. Raises UserError if the file is empty, or no test
    content has one of the tags.
    """
    rest = without(corpus, file)
    if not isinstance(rest, WithoutTags) or not rest.left_out:
        raise UserError(f"{file}: no tags, expected their ids, one per line")
    new = rest.left_out
    test = [item for item in corpus.exemplars("test") if new.intersection(item.accepted)]
    if not test:
        raise UserError(f"{file}: no test content has one of these tags")
    added = first_exemplars(corpus, new)
    rows = []
    for row in (row for row in NEW if not names or row.name in names):
        if (missing := _missing(row, models)) is not None:
            console.say(f"{row.name}: {missing} is missing, skipped for new tags")
            continue
        rows.append({"name": row.name, "what": row.what, **await _row(row, corpus, rest, test, added, models, cache)})
    return {"tags": len(new), "contents": len(test), "rows": rows}


def joined(kept: object, found: Mapping[str, object]) -> dict[str, object]:
    """The report `found`, with the rows kept of the same tags and contents that were not measured again."""
    same = isinstance(kept, dict) and all(kept.get(name) == found[name] for name in ("tags", "contents"))
    rows = {row["name"]: row for one in ((kept, found) if same else (found,)) for row in _rows(one)}
    order = [row.name for row in NEW]
    return {**found, "rows": [rows[name] for name in order if name in rows]}


def _rows(report: object) -> list[dict[str, object]]:
    rows = report.get("rows") if isinstance(report, Mapping) else None
    return rows if isinstance(rows, list) else []


def first_exemplars(corpus: Corpus, new: frozenset[str]) -> list[dict[str, Exemplar]]:
    """For each of STEPS, return the training contents that change, by id, with their new tags at that step: each new
    tag is kept on its first contents, as many as the step says."""
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
    settings = settings_of(row, models)
    async with (
        with_memory(settings, NewTagsByName(corpus, rest), cache) as bare,
        assemble.over(bare, settings) as stack,
    ):
        found: dict[str, object] = {"ran": ran(stack)}
        for step, changed in zip(STEPS, added, strict=True):
            records = [MemoryRecord("exemplars", encode_record(item), name) for name, item in changed.items()]
            await stack.projection().apply(records)
            found[f"r_at_10_after_{step}"] = round(await _recall(stack, test, rest.left_out), 2)
            console.say(f"{row.name}, {step} exemplars: {found[f'r_at_10_after_{step}']}")
    return found


async def _recall(stack: TaggingStack, test: Sequence[Exemplar], new: frozenset[str]) -> float:
    numbers = {tag: number for number, tag in enumerate(sorted(new))}
    tagger = stack.uncalibrated()
    with console.bar("tagging", len(test)) as bar:
        results = await tag_all(tagger, [content_of(item) for item in test], bar.advance)
    # Other tags take up ranks and are never right.
    indices = np.full((len(results), K), -1, np.int64)
    for row, result in enumerate(results):
        for column, tag in enumerate(result.tags[:K]):
            indices[row, column] = numbers.get(tag.id, len(numbers) + column)
    truth: list[Ints] = [np.array(sorted(numbers[tag] for tag in new.intersection(item.accepted))) for item in test]
    return recall_at(Ranked(indices, np.zeros(indices.shape)), truth, K)


def markdown(report: Mapping[str, object]) -> str:
    """The results as a markdown table."""
    lines = [f"| row | {' | '.join(map(str, STEPS))} |", "| --- |" + " --- |" * len(STEPS)]
    lines += [
        f"| {row['name']} | " + " | ".join(str(row[f"r_at_10_after_{step}"]) for step in STEPS) + " |"
        for row in _rows(report)
    ]
    return "\n".join(lines)
