"""`tagbus evaluate-models`: baselines and trained models in one table, on test contents used for no tuning.

    tagbus evaluate-models CORPUS                       print the table of bench/results/models.json
    tagbus evaluate-models CORPUS --rows untrained      measure that row again and store it there, and its raw rows
    tagbus evaluate-models CORPUS --new-tags FILE       recall of tags without training data (newtags.py), of --rows

Our rows run end to end through the tagger. Confidences are calibrated on the validation contents, except with a ranker,
which was trained on them and has its own calibration. A baseline's row is computed from its stored predictions: see
models/baselines/.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.evaluate import charts, newtags
from tagbus.models.evaluate.measure import Paths, measure_rows, raw_file
from tagbus.models.evaluate.newtags import rows_of
from tagbus.models.evaluate.raw import Raw
from tagbus.models.evaluate.rows import BASELINES, OURS, Row
from tagbus.stream.app import console
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.quality import LABELS

METHOD: Final = (
    "Test contents, each row measured once; P, nDCG, R, PSP (A 0.55, B 1.5), F1, Acc, Coverage and HR in percent, ECE "
    "of the ten best tags as a fraction in 15 bins. `intervals`: 95%, 1,000 bootstrap samples. `r_at_10_head`, "
    "`_torso`, `_tail`: of tags with 100, 10 and fewer training contents. `acc_at_3`, `coverage_at_1`, `right`, "
    "`hr_at_1`: of tags with a confidence of 0.5 and more. train_seconds and contents_per_second are of the CPU. "
    "`ran`: the release, the path, the components with their versions, the memory and changed settings of recall."
)

Report = dict[str, object]


def command(
    corpus: Annotated[str, typer.Argument(help="folder with training, validation and test contents")],
    rows: Annotated[str, typer.Option(help="rows to measure, comma-separated; the others are printed as stored")] = "",
    to: Annotated[
        Path, typer.Option("--out", help="the table as JSON; .md, .png and the raw rows are written next to it")
    ] = Path("bench/results/models.json"),
    models: Annotated[Path, typer.Option(help="folder of trained models and of the baselines' predictions")] = Path(
        ".cache/models"
    ),
    cache: Annotated[Path, typer.Option(help="folder to cache embeddings in")] = Path(".cache/evaluate"),
    new_tags: Annotated[
        Path | None, typer.Option(help="ids of tags to evaluate as new ones, one per line; of --rows if given")
    ] = None,
) -> None:
    """Compare trained models and baselines on the test contents of CORPUS, in one table."""
    names = [name for name in rows.split(",") if name]
    chosen = _named(names)
    if chosen:
        paths = Paths(models, cache, _raw(to), f"tagbus evaluate-models {corpus} --rows {{}}")
        asyncio.run(_measure(open_corpus(corpus), chosen, paths, to))
    if new_tags is not None:
        found = asyncio.run(newtags.measure(open_corpus(corpus), new_tags, models, cache, names))
        report = _kept(to)
        _write(to, {**report, "new_tags": newtags.joined(report.get("new_tags"), found)})
    report = _kept(to)
    _write(to, report)
    kept = {str(row["name"]): raw_file(_raw(to), str(row["name"])) for row in rows_of(report)}
    charts.draw(to, models, {name: Raw.load(path) for name, path in kept.items() if path.exists()})
    _print(report)
    typer.echo(json.dumps(report))


def _raw(table: Path) -> Path:
    """The folder of the raw rows of a table."""
    return table.parent / "raw" / table.stem


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


def _with(report: Report, found: Mapping[str, object]) -> list[dict[str, object]]:
    """The rows with this one added or replaced, in the order of rows.py."""
    order = [row.name for row in (*BASELINES, *OURS)]
    rows = {str(row["name"]): row for row in rows_of(report)} | {str(found["name"]): dict(found)}
    return sorted(rows.values(), key=lambda row: order.index(str(row["name"])) if row["name"] in order else len(order))


async def _measure(corpus: Corpus, rows: Sequence[Row], paths: Paths, to: Path) -> None:
    """Write each row as soon as it is measured, to a file that another run may have changed meanwhile."""
    async for found in measure_rows(corpus, rows, paths):
        report = _kept(to)
        _write(to, {**report, "rows": _with(report, found)})


def _write(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


COLUMNS: Final = {
    **LABELS,
    "r_at_10_head": "R@10 head",
    "r_at_10_torso": "torso",
    "r_at_10_tail": "tail",
    "train_seconds": "training, s",
    "contents_per_second": "contents/s",
}


def markdown(report: Report) -> str:
    """The table as markdown: each figure with the half-width of its interval."""
    lines = ["| row | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    lines += [f"| {row['name']} | " + " | ".join(_cells(row)) + " |" for row in rows_of(report)]
    if ran := [line for row in rows_of(report) if (line := _ran(row))]:
        lines += ["", "What ran:", "", *ran]
    new = report.get("new_tags")
    if isinstance(new, dict):
        lines += [
            "",
            "R@10 of new tags, by exemplars each (of known tags of the same contents):",
            "",
            newtags.markdown(new),
        ]
    return "\n".join((*lines, "", METHOD, ""))


def _ran(row: Mapping[str, object]) -> str | None:
    """The release and the versions of the components of one of our rows."""
    ran = row.get("ran")
    if not isinstance(ran, dict):
        return None
    return f"- {row['name']}: {', '.join((ran['release'], *ran['components'].values()))}"


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
    """Print the table without intervals, for lack of room."""
    table = Table("row", *COLUMNS.values(), title="percent; ECE a fraction; intervals in the files")
    for row in rows_of(report):
        table.add_row(str(row["name"]), *("-" if row.get(name) is None else f"{row[name]}" for name in COLUMNS))
    console.stderr.print(table)
