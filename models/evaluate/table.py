"""`tagbus evaluate-models`: every baseline and each of ours in one table, on contents that nothing was chosen on.

    tagbus evaluate-models CORPUS                       print the table of bench/results/models.json
    tagbus evaluate-models CORPUS --rows untrained      measure that row anew and keep it there
    tagbus evaluate-models CORPUS --new-tags FILE       tags that nothing was trained on, see models/evaluate/newtags.py

A row of ours goes end to end through the tagger. Its confidence is fitted on the validation contents, but for a ranker,
which has learnt from those and brings its own. A baseline's row is made of what it found: see models/baselines/.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.table import Table

from tagbus.models import journal
from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.data.truth import numbers_of
from tagbus.models.evaluate import charts, newtags
from tagbus.models.evaluate.rows import BASELINES, OURS, Row
from tagbus.models.evaluate.systems import K, dressed, filled, settings_of, variables_of
from tagbus.models.journal import JOURNAL
from tagbus.stream import calibrate, quality
from tagbus.stream.app import console
from tagbus.stream.app.assemble import Brain
from tagbus.stream.app.evaluation import content_of, fit, tag_all
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.intervals import bootstrap, recall_by_band
from tagbus.stream.quality import Floats, Ints, Ranked

# LLM4Tag publishes no tag below; Acc@k, Coverage@k and #Right are of what is left.
PUBLISHED: Final = 0.5
METHOD: Final = (
    "Test contents, each row measured once; P, nDCG, R, PSP (A 0.55, B 1.5), F1, Acc, Coverage and HR in percent, ECE "
    "of the ten best tags as a fraction in 15 bins. `intervals`: 95%, 1,000 bootstrap samples. `r_at_10_head`, "
    "`_torso`, `_tail`: of tags with 100, 10 and fewer training contents. `acc_at_3`, `coverage_at_1`, `right`, "
    "`hr_at_1`: of tags with a confidence of 0.5 and more. train_seconds and contents_per_second are of the CPU."
)

Report = dict[str, object]


@dataclass(frozen=True, slots=True)
class Exam:
    """What every row is measured on."""

    numbers: Mapping[str, int]
    counts: Ints
    propensity: Floats
    val: Sequence[Exemplar]
    test: Sequence[Exemplar]

    @classmethod
    def of(cls, corpus: Corpus) -> "Exam":
        """Read a corpus."""
        numbers = {tag.id: number for number, tag in enumerate(corpus.tags())}
        counts = np.zeros(len(numbers), np.int64)
        contents = 0
        for item in corpus.exemplars("train"):
            counts[numbers_of(item, numbers)] += 1
            contents += 1
        propensity = quality.propensities(counts, contents)
        return cls(numbers, counts, propensity, list(corpus.exemplars("val")), list(corpus.exemplars("test")))

    def truth(self, items: Sequence[Exemplar]) -> list[Ints]:
        """The right tags of each."""
        return [np.unique(np.array(numbers_of(item, self.numbers), np.int64)) for item in items]

    def ranked(self, results: Sequence[TaggedContent]) -> Ranked:
        """What the tagger found."""
        indices, scores = np.full((len(results), K), -1, np.int64), np.zeros((len(results), K))
        for row, result in enumerate(results):
            for column, tag in enumerate(result.tags[:K]):
                indices[row, column], scores[row, column] = self.numbers[tag.id], tag.confidence
        return Ranked(indices, scores)


def command(
    corpus: Annotated[str, typer.Argument(help="folder with train, val and test contents")],
    rows: Annotated[
        str, typer.Option(help="rows to measure anew, with commas; those kept are printed as they are")
    ] = "",
    to: Annotated[Path, typer.Option("--out", help="the table, JSON; as .md and .png beside it")] = Path(
        "bench/results/models.json"
    ),
    models: Annotated[Path, typer.Option(help="folder of trained models and of what baselines found")] = Path(
        ".cache/models"
    ),
    cache: Annotated[Path, typer.Option(help="folder that keeps embeddings")] = Path(".cache/evaluate"),
    new_tags: Annotated[Path | None, typer.Option(help="ids of tags to play new ones, one a line")] = None,
) -> None:
    """Compare trained models and baselines on the test contents of CORPUS, in one table."""
    chosen = _named([name for name in rows.split(",") if name])
    if chosen:
        places = Places(models, cache, f"tagbus evaluate-models {corpus} --rows {{}}")
        asyncio.run(_measure(open_corpus(corpus), chosen, places, to))
    if new_tags is not None:
        found = asyncio.run(newtags.measure(open_corpus(corpus), new_tags, models, cache))
        _write(to, {**_kept(to), "new_tags": found})
    report = _kept(to)
    _write(to, report)
    charts.draw(to, models, [str(row["name"]) for row in _rows(report)])
    _print(report)
    typer.echo(json.dumps(report))


def _named(names: Sequence[str]) -> list[Row]:
    known = {row.name: row for row in (*BASELINES, *OURS)}
    if strange := sorted(set(names) - known.keys()):
        raise UserError(f"{shorten(strange[0])} is no row, expected {', '.join(known)}")
    return [known[name] for name in names]


def _kept(path: Path) -> Report:
    if not path.exists():
        return {"method": METHOD, "rows": []}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: {error}, expected a table of `tagbus evaluate-models`") from None
    return {**kept, "method": METHOD}


def _rows(report: Report) -> list[dict[str, object]]:
    rows = report.get("rows")
    return rows if isinstance(rows, list) else []


def _with(report: Report, found: Mapping[str, object]) -> list[dict[str, object]]:
    """The rows with this one in place of the one of its name, in the order of models/evaluate/rows.py."""
    order = [row.name for row in (*BASELINES, *OURS)]
    rows = {str(row["name"]): row for row in _rows(report)} | {str(found["name"]): dict(found)}
    return sorted(rows.values(), key=lambda row: order.index(str(row["name"])) if row["name"] in order else len(order))


@dataclass(frozen=True, slots=True)
class Places:
    """Where trained models and embeddings lie, and the command that measures a row, with {} for its name."""

    models: Path
    cache: Path
    line: str


async def _measure(corpus: Corpus, rows: Sequence[Row], places: Places, to: Path) -> None:
    """Each row is written as soon as it is there, to a file that another run may have changed meanwhile."""
    async for found in measure_rows(corpus, rows, places):
        report = _kept(to)
        _write(to, {**report, "rows": _with(report, found)})


async def measure_rows(corpus: Corpus, rows: Sequence[Row], places: Places) -> AsyncIterator[dict[str, object]]:
    """The figures of rows. Raises UserError for one whose models are not there."""
    exam = Exam.of(corpus)
    baselines = {row.name for row in BASELINES}
    for row in rows:
        if row.name in baselines:
            yield _entry(row, *_baseline(row, exam, places.models), exam, places)
    ours = [row for row in rows if row.name not in baselines]
    for _, group in groupby(ours, key=lambda row: _memory(settings_of(row, places.models))):
        some = list(group)
        async with filled(settings_of(some[0], places.models), corpus, places.cache) as brain:
            for row in some:
                yield _entry(row, *await _ours(row, exam, brain, places), exam, places)


def _memory(settings: Settings) -> tuple[Path | None, Path | None, str, bool]:
    """What rows that share a memory have in common."""
    return settings.encoder.folder, settings.second_encoder.folder, settings.memory.kind, settings.recall.c2c2t


def _entry(row: Row, ranked: Ranked, run: Mapping[str, object], exam: Exam, places: Places) -> dict[str, object]:
    """A row of the table. What was found is kept for the diagrams."""
    kept = places.models / "rows" / f"{row.name}.npz"
    kept.parent.mkdir(parents=True, exist_ok=True)
    right = quality.hits(ranked, exam.truth(exam.test))
    found = ranked.indices >= 0
    np.savez_compressed(kept, confidence=ranked.scores[found], right=right[found])
    entry = {"name": row.name, "what": row.what, **figures(ranked, exam), **run}
    console.say(f"{row.name}: P@1 {entry['p_at_1']}")
    return entry


def figures(ranked: Ranked, exam: Exam) -> dict[str, object]:
    """Everything that the table says of what was found for the test contents."""
    truth = exam.truth(exam.test)
    parts = quality.parts(ranked, truth, exam.propensity)
    interval = bootstrap(parts)
    low, high = _rounded(interval.low), _rounded(interval.high)
    bands = recall_by_band(ranked, truth, exam.counts)
    published = quality.at_least(ranked, PUBLISHED)
    some = bool((published.indices >= 0).any())
    return {
        **_rounded(quality.measure(ranked, truth, exam.propensity)),
        "f1_at_5": round(quality.f1_at(ranked, truth, 5), 2),
        **{f"r_at_10_{name}": None if value is None else round(value, 2) for name, value in bands.items()},
        "acc_at_3": round(quality.acc_at(published, truth, 3), 2) if some else None,
        "coverage_at_1": round(quality.coverage_at(published, 1), 2),
        "right": round(quality.right_tags(published, truth), 3),
        "hr_at_1": round(quality.hit_rate(published, truth, 1), 2),
        "intervals": {name: [low[name], high[name]] for name in low},
    }


def _rounded(found: quality.Quality) -> dict[str, float]:
    return {name: round(value, 4 if name == "ece" else 2) for name, value in asdict(found).items()}


def _baseline(row: Row, exam: Exam, models: Path) -> tuple[Ranked, dict[str, object]]:
    """What a baseline found, its confidence fitted on the validation contents as ours is."""
    folder = models / row.name
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        splits = {split: np.load(folder / f"{split}.npz", allow_pickle=False) for split in ("val", "test")}
    except OSError as error:
        raise UserError(
            f"{error.filename} is not there; `python -m tagbus.models.baselines {row.name}` makes it"
        ) from None
    val, test = (
        Ranked(splits[split]["indices"][:, :K].astype(np.int64), splits[split]["scores"][:, :K].astype(np.float64))
        for split in ("val", "test")
    )
    found = val.indices >= 0
    right = quality.hits(val, exam.truth(exam.val))
    curve = calibrate.fit(val.scores[found], right[found], row.name, len(exam.val))
    del run["name"]
    return Ranked(test.indices, curve.apply(test.scores)), run


async def _ours(row: Row, exam: Exam, bare: Brain, places: Places) -> tuple[Ranked, dict[str, object]]:
    settings = settings_of(row, places.models)
    training = training_of(settings)
    async with dressed(bare, settings) as brain:
        tagger = brain.tagger() if brain.pipeline.ranker else brain.tagger(await fit(brain, exam.val))
        contents = [content_of(item) for item in exam.test]
        started = time.process_time()
        with console.bar(f"tagging, {row.name}", len(contents)) as bar:
            results = await tag_all(tagger, contents, bar.advance)
        seconds = time.process_time() - started
    return exam.ranked(results), {
        "train_seconds": round(sum(part["cpu_seconds"] for part in training.values()), 1),
        "contents_per_second": round(len(contents) / seconds, 1),
        "training": training,
        "command": places.line.format(row.name),
        "settings": variables_of(row, places.models),
    }


def training_of(settings: Settings) -> dict[str, dict[str, float]]:
    """What each trained part took, by the log that lies beside it."""
    parts = {
        "encoder": settings.encoder.folder,
        "second_encoder": settings.second_encoder.folder,
        "heads": settings.heads.folder,
        "labeltree": settings.labeltree.folder,
        "ranker": settings.rank.folder,
        "cross_encoder": settings.cross_encoder.folder,
    }
    costs = {name: journal.cost(folder / JOURNAL) for name, folder in parts.items() if folder is not None}
    return {name: cost for name, cost in costs.items() if cost}


def _write(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


COLUMNS: Final = {
    "p_at_1": "P@1",
    "p_at_3": "P@3",
    "p_at_5": "P@5",
    "ndcg_at_5": "nDCG@5",
    "r_at_10": "R@10",
    "psp_at_5": "PSP@5",
    "ece": "ECE",
    "r_at_10_head": "R@10 head",
    "r_at_10_torso": "torso",
    "r_at_10_tail": "tail",
    "train_seconds": "training, s",
    "contents_per_second": "contents/s",
}


def markdown(report: Report) -> str:
    """The table for a page: each figure with its interval's half width."""
    lines = ["| row | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    lines += [f"| {row['name']} | " + " | ".join(_cells(row)) + " |" for row in _rows(report)]
    new = report.get("new_tags")
    if isinstance(new, dict):
        lines += ["", "R@10 of new tags, by exemplars each:", "", newtags.markdown(new)]
    return "\n".join((*lines, "", METHOD, ""))


def _cells(row: Mapping[str, object]) -> Iterator[str]:
    intervals = row.get("intervals")
    for name in COLUMNS:
        value = row.get(name)
        spread = intervals.get(name) if isinstance(intervals, dict) else None
        if spread is None:
            yield "-" if value is None else f"{value}"
        else:
            yield f"{value} ± {(spread[1] - spread[0]) / 2:.{4 if name == 'ece' else 2}f}"


def _print(report: Report) -> None:
    """Without intervals, which a terminal has no room for."""
    table = Table("row", *COLUMNS.values(), title="percent; ECE a fraction; intervals in the files")
    for row in _rows(report):
        table.add_row(str(row["name"]), *("-" if row.get(name) is None else f"{row[name]}" for name in COLUMNS))
    console.stderr.print(table)
