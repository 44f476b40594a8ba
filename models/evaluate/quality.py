"""`make quality`: runs the whole recipe on every available data set, and keeps its figures over time.

    python -m tagbus.models.evaluate.quality examples ../shared/data/yso-titles

The rows untrained, light and full are trained and measured on each data set, to detect a change that helps one and
hurts another. A larger data set is cut to its first `--titles` training contents; `--titles 0` uses all of it, which
takes hours. Trained models are kept in `--keep`, by the code that trained them: an interrupted run resumes, and other
code starts over. The figures are added to `--out` under the commit of the checkout, and what was tagged is kept in
`raw/quality` beside it (`python -m tagbus.models.evaluate.raw`). Exits with code 1 if a figure is outside its interval
in the previous run.
"""

import asyncio
import hashlib
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, cast

import typer
from rich.table import Table

from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.evaluate import history as kept
from tagbus.models.evaluate.history import FIGURES, Run
from tagbus.models.evaluate.measure import Paths, measure_rows
from tagbus.models.evaluate.recipe import ROWS, Experiment, prepare
from tagbus.models.evaluate.rows import OURS
from tagbus.stream.app import console
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import UserError, shorten

METHOD: Final = (
    "Rows as in models.md, trained by models/evaluate/recipe.py; P, nDCG, R, PSP in percent, ECE a fraction, 95% "
    "intervals by bootstrap over the test contents. A data set NAME-N is the first N training contents of NAME."
)
# Validation and test contents of a cut data set.
VALIDATION: Final = 2000
TEST: Final = 3000


def command(
    data: Annotated[list[str], typer.Argument(help="folders with training, validation and test contents")],
    rows: Annotated[str, typer.Option(help="rows, comma-separated")] = ",".join(ROWS),
    titles: Annotated[int, typer.Option(min=0, help="training contents of a larger data set; 0: all")] = 12_000,
    keep: Annotated[Path, typer.Option(help="folder of the trained models")] = Path(".cache/quality"),
    to: Annotated[Path, typer.Option("--out", help="the history, JSON")] = Path("bench/results/quality-history.json"),
) -> None:
    """Train and measure the rows on each data set, and add their figures to the history."""
    chosen = [name for name in rows.split(",") if name]
    if strange := sorted(set(chosen) - set(ROWS)):
        raise UserError(f"--rows: {shorten(strange[0])} is wrong, expected some of {', '.join(ROWS)}")
    here, losses, runs = checkout(), list[str](), list[Run]()
    found = kept.read(to)
    for place in data:
        name, cut = _cut(place, titles, keep)
        experiment = Experiment(cut, _contents(cut), keep / here.name / name)
        run = _measured(name, chosen, experiment, to.parent / "raw" / "quality" / name).model_copy(
            update={"commit": here.commit, "changed": here.changed}
        )
        # Each data set is written when it is done; another run may have written meanwhile.
        found = kept.added(kept.read(to).model_copy(update={"method": METHOD}), run)
        kept.write(to, found)
        losses += kept.worse(found, run)
        runs.append(run)
    table = Table("data", "row", *FIGURES, title=f"{to}, and the changes since the previous run")
    for cells in kept.lines(found, runs):
        table.add_row(*cells)
    console.stderr.print(table)
    for line in losses:
        console.say(f"worse: {line}")
    if losses:
        raise typer.Exit(1)


def _cut(place: str, titles: int, keep: Path) -> tuple[str, str]:
    """Return the name of a data set, and its folder, or one of its first contents if it has more than `titles`."""
    corpus, name = open_corpus(place), Path(place).resolve().name
    if not titles or sum(1 for _ in islice(corpus.exemplars("train"), titles + 1)) <= titles:
        return name, place
    folder = keep / f"{name}-{titles}" / "data"
    if not (folder / "test.jsonl").exists():
        _write(folder, corpus, titles)
    return f"{name}-{titles}", str(folder)


def _write(folder: Path, corpus: Corpus, titles: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Iterable[Event]] = {
        "tags": corpus.tags(),
        "train": islice(corpus.exemplars("train"), titles),
        "val": islice(corpus.exemplars("val"), VALIDATION),
        "test": islice(corpus.exemplars("test"), TEST),
    }
    for name, events in parts.items():
        part = folder / f"{name}.jsonl.part"
        with part.open("wb") as file:
            file.writelines(encode(event) + b"\n" for event in events)
        part.replace(folder / f"{name}.jsonl")


def _contents(place: str) -> int:
    return sum(1 for _ in open_corpus(place).exemplars("train"))


def _measured(name: str, rows: list[str], trained: Experiment, raw: Path) -> Run:
    """The figures of the rows; what was tagged is kept in `raw`, that of the last run only."""
    corpus = open_corpus(trained.corpus)
    for row in rows:
        prepare(row, trained)
    found = asyncio.run(_rows(corpus, rows, Paths(trained.models, trained.cache, raw, "make quality")))
    return Run(
        commit="",
        changed=False,
        date=datetime.now(UTC).date().isoformat(),
        data=name,
        tags=len(corpus.tags()),
        exemplars=trained.contents,
        contents=sum(1 for _ in corpus.exemplars("test")),
        rows={row: {figure: float(cast(float, one[figure])) for figure in _QUALITY} for row, one in found.items()},
        intervals={row: cast("dict[str, tuple[float, float]]", one["intervals"]) for row, one in found.items()},
    )


_QUALITY: Final = ("p_at_1", "p_at_3", "p_at_5", "ndcg_at_5", "r_at_10", "psp_at_5", "ece", "contents_per_second")


async def _rows(corpus: Corpus, rows: list[str], paths: Paths) -> dict[str, Mapping[str, object]]:
    chosen = [row for row in OURS if row.name in rows]
    found = {str(one["name"]): one async for one in measure_rows(corpus, chosen, paths)}
    return {name: found[name] for name in rows}


@dataclass(frozen=True, slots=True)
class Checkout:
    """The commit of the checkout, whether it has uncommitted changes, and a name for both."""

    commit: str
    changed: bool
    name: str


def checkout() -> Checkout:
    """Return the checkout that this runs in; `unknown` outside of one."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(("git", *arguments), capture_output=True, check=True).stdout

    code = ("--", ".", ":!bench/results")
    try:
        commit, changes = git("rev-parse", "HEAD").decode().strip(), git("status", "--porcelain", *code)
        digest = hashlib.sha256(changes + git("diff", "HEAD", *code)).hexdigest()[:8]
    except (OSError, subprocess.CalledProcessError):
        return Checkout("unknown", changed=False, name="unknown")
    return Checkout(commit, bool(changes), f"{commit[:12]}-{digest}" if changes else commit[:12])


if __name__ == "__main__":
    typer.run(command)
