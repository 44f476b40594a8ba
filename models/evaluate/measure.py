"""The figures of a row on the test contents: baselines from stored predictions, ours end to end through the tagger."""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from tagbus.models import journal
from tagbus.models.data.corpus import Corpus
from tagbus.models.data.truth import numbers_of
from tagbus.models.evaluate.raw import DIGITS, Raw
from tagbus.models.evaluate.rows import BASELINES, Row
from tagbus.models.evaluate.systems import K, settings_of, variables_of, with_memory
from tagbus.models.journal import JOURNAL
from tagbus.stream import calibrate, quality
from tagbus.stream.app import assemble, components, console
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.evaluation import content_of, fit, ran, tag_all
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.errors import UserError
from tagbus.stream.quality import Floats, Ints, Ranked
from tagbus.stream.rank import trees
from tagbus.stream.recall import second_encoder


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The contents that all rows are measured on, with the number of training contents and of each tag among them."""

    numbers: Mapping[str, int]
    counts: Ints
    trained: int
    val: Sequence[Exemplar]
    test: Sequence[Exemplar]

    @classmethod
    def of(cls, corpus: Corpus) -> "EvaluationSet":
        """Read the corpus."""
        numbers = {tag.id: number for number, tag in enumerate(corpus.tags())}
        counts = np.zeros(len(numbers), np.int64)
        contents = 0
        for item in corpus.exemplars("train"):
            counts[numbers_of(item, numbers)] += 1
            contents += 1
        return cls(numbers, counts, contents, list(corpus.exemplars("val")), list(corpus.exemplars("test")))

    def truth(self, items: Sequence[Exemplar]) -> list[Ints]:
        """The right tag numbers of each content."""
        return [np.unique(np.array(numbers_of(item, self.numbers), np.int64)) for item in items]

    @property
    def propensity(self) -> Floats:
        """The propensity of each tag."""
        return quality.propensities(self.counts, self.trained)

    def raw(self, ranked: Ranked) -> Raw:
        """The raw rows of a result on the test contents."""
        ranked = Ranked(ranked.indices, ranked.scores.round(DIGITS))
        return Raw([item.id for item in self.test], ranked, self.truth(self.test), self.counts, self.trained)

    def ranked(self, results: Sequence[TaggedContent]) -> Ranked:
        """The tagger's results as arrays."""
        indices, scores = np.full((len(results), K), -1, np.int64), np.zeros((len(results), K))
        for row, result in enumerate(results):
            for column, tag in enumerate(result.tags[:K]):
                indices[row, column], scores[row, column] = self.numbers[tag.id], tag.confidence
        return Ranked(indices, scores)


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders of trained models, of embeddings and of raw rows, and the command that measures a row, with {} for the
    row's name."""

    models: Path
    cache: Path
    raw: Path
    line: str


async def measure_rows(corpus: Corpus, rows: Sequence[Row], paths: Paths) -> AsyncIterator[dict[str, object]]:
    """Measure rows, one at a time. Raises UserError if the models of a row are missing."""
    test_set = EvaluationSet.of(corpus)
    baselines = {row.name for row in BASELINES}
    for row in rows:
        if row.name in baselines:
            yield _entry(row, *_baseline(row, test_set, paths.models), test_set, paths)
    tagged = [row for row in rows if row.name not in baselines]
    for _, group in groupby(tagged, key=lambda row: _memory(settings_of(row, paths.models))):
        some = list(group)
        async with with_memory(settings_of(some[0], paths.models), corpus, paths.cache) as stack:
            for row in some:
                yield _entry(row, *await ours(row, test_set, stack, paths), test_set, paths)


def _memory(settings: Settings) -> tuple[Path | None, Path | None, str, bool]:
    """The settings that rows with the same memory share."""
    second = components.folder_of(settings, second_encoder.NAME)
    return settings.encoder.folder, second, settings.memory.kind, settings.recall.c2c2t


def _entry(
    row: Row, ranked: Ranked, run: Mapping[str, object], test_set: EvaluationSet, paths: Paths
) -> dict[str, object]:
    """A row of the table; its raw rows are stored."""
    raw = test_set.raw(ranked)
    kept = raw_file(paths.raw, row.name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(raw.dump())
    entry = {"name": row.name, "what": row.what, **raw.figures(), **run}
    console.say(f"{row.name}: P@1 {entry['p_at_1']}")
    return entry


def raw_file(folder: Path, name: str) -> Path:
    """The file of a row's raw rows."""
    return folder / f"{name}.npz"


def _baseline(row: Row, test_set: EvaluationSet, models: Path) -> tuple[Ranked, dict[str, object]]:
    """A baseline's predictions, with confidences calibrated on the validation contents, as ours are."""
    folder = models / row.name
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        splits = {split: np.load(folder / f"{split}.npz", allow_pickle=False) for split in ("val", "test")}
    except OSError as error:
        raise UserError(
            f"{error.filename} is missing; create it with `python -m tagbus.models.baselines {row.name}`"
        ) from None
    val, test = (
        Ranked(splits[split]["indices"][:, :K].astype(np.int64), splits[split]["scores"][:, :K].astype(np.float64))
        for split in ("val", "test")
    )
    found = val.indices >= 0
    right = quality.hits(val, test_set.truth(test_set.val))
    curve = calibrate.fit(val.scores[found], right[found], Fingerprint(row.name, "baseline", {}), len(test_set.val))
    del run["name"]
    return Ranked(test.indices, curve.apply(test.scores)), run


async def ours(row: Row, test_set: EvaluationSet, bare: TaggingStack, paths: Paths) -> tuple[Ranked, dict[str, object]]:
    """What the tagger finds for the test contents, and how the row came about. `bare`: a stack of `with_memory`."""
    settings = settings_of(row, paths.models)
    training = training_of(settings)
    async with assemble.over(bare, settings) as stack:
        tagger = stack.tagger() if trees.NAME in stack.parts else stack.tagger([await fit(stack, test_set.val)])
        contents = [content_of(item) for item in test_set.test]
        started = time.process_time()
        with console.bar(f"tagging, {row.name}", len(contents)) as bar:
            results = await tag_all(tagger, contents, bar.advance)
        seconds = time.process_time() - started
    return test_set.ranked(results), {
        "train_seconds": round(sum(part["cpu_seconds"] for part in training.values()), 1),
        "contents_per_second": round(len(contents) / seconds, 1),
        "training": training,
        "command": paths.line.format(row.name),
        "settings": variables_of(row, paths.models),
        "ran": ran(stack),
    }


def training_of(settings: Settings) -> dict[str, dict[str, float]]:
    """The training cost of each component, from the log next to it."""
    trained = {one.name: components.folder_of(settings, one.name) for one in components.REGISTRY}
    # Tag vectors are in the folder of the encoder that was trained with them.
    others = {name: folder for name, folder in trained.items() if folder != settings.encoder.folder}
    parts = {"encoder": settings.encoder.folder, **others}
    costs = {name: journal.cost(folder / JOURNAL) for name, folder in parts.items() if folder is not None}
    return {name: cost for name, cost in costs.items() if cost}
