"""New tags: recall of tags without any training data, by name alone and after a few exemplars.

Their annotations are in neither memory nor the training data of heads and ranker (`--without FILE` of the training
commands). Their names are in memory, as if they had just been published.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
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
    """Measure R@10 in percent of the new tags on the test contents that have one, by system and number of exemplars,
    and as `known_...` that of the other tags of these contents.

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
    rows = {row["name"]: row for one in ((kept, found) if same else (found,)) for row in rows_of(one)}
    order = [row.name for row in NEW]
    return {**found, "rows": [rows[name] for name in order if name in rows]}


def rows_of(report: object) -> list[dict[str, object]]:
    """The rows of a table as JSON; none of anything else."""
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
            new, known = await _recall(stack, test, rest.left_out)
            found[f"r_at_10_after_{step}"], found[f"known_r_at_10_after_{step}"] = round(new, 2), round(known, 2)
            console.say(f"{row.name}, {step} exemplars: {new:.2f}, known tags of the same contents: {known:.2f}")
    return found


async def _recall(stack: TaggingStack, test: Sequence[Exemplar], new: frozenset[str]) -> tuple[float, float]:
    """R@10 of the new tags, and of the other tags of the same contents: one that puts new tags first loses these."""
    tagger = stack.uncalibrated()
    with console.bar("tagging", len(test)) as bar:
        results = await tag_all(tagger, [content_of(item) for item in test], bar.advance)
    numbers: dict[str, int] = {}
    indices = np.full((len(results), K), -1, np.int64)
    for row, result in enumerate(results):
        for column, tag in enumerate(result.tags[:K]):
            indices[row, column] = numbers.setdefault(tag.id, len(numbers))

    def recall(chosen: Callable[[str], bool]) -> float:
        right = [[tag for tag in item.accepted if chosen(tag)] for item in test]
        rows = [row for row, tags in enumerate(right) if tags]
        truth: list[Ints] = [
            np.array(sorted(numbers.setdefault(tag, len(numbers)) for tag in right[row]), np.int64) for row in rows
        ]
        return recall_at(Ranked(indices[rows], np.zeros((len(rows), K))), truth, K) if rows else 0.0

    return recall(lambda tag: tag in new), recall(lambda tag: tag not in new)


def markdown(report: Mapping[str, object]) -> str:
    """The results as a markdown table; in brackets R@10 of the known tags of the same contents, if it was measured."""
    lines = [f"| row | {' | '.join(map(str, STEPS))} |", "| --- |" + " --- |" * len(STEPS)]
    lines += [f"| {row['name']} | {' | '.join(_cell(row, step) for step in STEPS)} |" for row in rows_of(report)]
    return "\n".join(lines)


def _cell(row: Mapping[str, object], step: int) -> str:
    known = row.get(f"known_r_at_10_after_{step}")
    return f"{row[f'r_at_10_after_{step}']}" + ("" if known is None else f" ({known})")
