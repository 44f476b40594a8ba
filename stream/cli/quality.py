"""`tagbus calibrate` and `tagbus evaluate`: fit confidences and measure quality."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import K, content_of, fit, fit_to, measure, name_of, ran, tag_all, undecided
from tagbus.stream.app.judge.report import Json, Wanted, draw, text
from tagbus.stream.app.judge.report import report as reported
from tagbus.stream.app.places import files
from tagbus.stream.calibrate import Calibration
from tagbus.stream.cli.tag import Cache, Exemplars, Tags, read_memory, remember
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError, shorten


def calibrate(
    file: Annotated[Path, typer.Argument(help="contents with their right tags: exemplars, one a line")],
    tags: Tags,
    to: Annotated[Path, typer.Option("--out", help="the calibration, JSON")],
    exemplars: Exemplars = None,
    cache: Cache = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="folder for what the confidences are worth: JSON, text and PNG")
    ] = None,
    k: Annotated[int, typer.Option("--at", min=1, help="the k of the report's Acc@k and Coverage@k")] = 1,
    accuracy: Annotated[
        float | None, typer.Option("--accuracy", min=0, max=100, help="find the cut for this Acc@k, in percent")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option("--coverage", min=0, max=100, help="find the cut for this Coverage@k, in percent")
    ] = None,
) -> None:
    """Fit the confidence: tag the contents of FILE, and learn how often a tag with a score like this is right.

    FILE may not hold contents that are among the exemplars: a memory that knows the answer looks surer than it is.
    """
    settings = load()
    if not to.parent.is_dir():
        raise UserError(f"{to}: {to.parent} is no folder; name a file in one for --out")
    if report is None and (accuracy is not None or coverage is not None):
        raise UserError("--accuracy and --coverage look for a cut in a report: name a folder with --report")
    wanted = None if report is None else Wanted(k, accuracy, coverage)
    fitted, figures = asyncio.run(_calibrate(settings, Given(file, tags, exemplars, cache), wanted))
    fitted.save(to)
    if fitted.judge is not None and not fitted.judge.weight:
        console.say("the judge has weight 0: held-out log loss does not improve with it, so it is not asked")
    if report is not None and figures is not None:
        _report(report, figures)
    pairs_of = f"{fitted.fitted_on} pairs of {fitted.contents} contents"
    console.say(f"{fitted.name} for release {fitted.release}: {pairs_of}, {to}")


@dataclass(frozen=True, slots=True)
class Given:
    """What a calibration is fitted with."""

    file: Path
    tags: Path
    exemplars: Path | None
    cache: Path | None


def _report(folder: Path, figures: Json) -> None:
    words = text(figures)
    _write(folder / "report.json", json.dumps(figures, indent=2) + "\n")
    _write(folder / "report.txt", words)
    drawn = draw(figures, folder / "report.png")
    console.print_line(words.rstrip())
    console.say(f"{folder}: report.json, report.txt" + (", report.png" if drawn else "; matplotlib draws report.png"))


async def _calibrate(settings: Settings, given: Given, wanted: Wanted | None) -> tuple[Calibration, Json | None]:
    file, tags, exemplars, cache = given.file, given.tags, given.exemplars, given.cache
    files.require_distinct(file, tags, exemplars)
    annotated = files.all_of(file, files.exemplar_of)
    taxonomy, exemplified = read_memory(tags, exemplars)
    known = {item.id for item in exemplified}
    if both := [item.id for item in annotated if item.id in known]:
        raise UserError(
            f"{file}: {shorten(both[0])} is among the exemplars too; take contents that memory does not hold"
        )
    async with assemble.in_process(settings, cache) as stack:
        await remember(stack, taxonomy, exemplified)
        if cache is not None:
            await filling.save_memories(cache, stack.memories)
        results = await undecided(stack, annotated)
        fitted = fit_to(stack, results, annotated)
        if wanted is None:
            return fitted, None
        counts = Counter(tag for item in exemplified for tag in item.accepted)
        fit_some = partial(fit_to, stack, annotated=annotated)
        return fitted, reported(results, annotated, counts, fit_some, wanted)


def evaluate(
    folder: Annotated[Path, typer.Argument(help="labels.tsv, train.tsv[.xz], val.tsv, test.tsv")],
    to: Annotated[Path | None, typer.Option("--out", help="also write the figures here, JSON")] = None,
    cache: Annotated[Path, typer.Option("--cache", help="folder that keeps embeddings")] = Path(".cache/evaluate"),
) -> None:
    """Tag test.tsv with the memory of train.tsv and print the quality; the calibration is fitted on val.tsv."""
    method, row = asyncio.run(_evaluate(load(), DataFolder(folder), cache))
    _print(row)
    report = {"method": method, "rows": [row]}
    typer.echo(json.dumps(report))
    if to is not None:
        _write(to, json.dumps(report, indent=2) + "\n")


def _write(to: Path, text: str) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{to}: cannot be written ({error.strerror})") from None


def _method(stack: TaggingStack) -> str:
    """How the figures came about, in words."""
    settings, versions = stack.settings, stack.components.versions
    routes = " and ".join(name for name, on in (("C2T", settings.recall.c2t), ("C2C2T", settings.recall.c2c2t)) if on)
    return (
        f"Memory ({settings.memory.kind}) of all training titles and all tags; recall by {routes or 'neither route'} "
        f"with RAE-XMC scores; components: {', '.join(versions.values()) or 'none'}; path {stack.components.scoring}; "
        "confidence by isotonic regression on val.tsv. P, nDCG, R and PSP (A 0.55, B 1.5) in percent, ECE of the ten "
        "best tags of each test title as a fraction in 15 bins of equal width."
    )


async def _evaluate(settings: Settings, data: DataFolder, cache: Path) -> tuple[str, dict[str, object]]:
    """The method in words, and the row of figures."""
    settings = settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": K})})
    async with assemble.in_process(settings, cache) as stack:
        taxonomy = data.tags()
        test = list(data.exemplars("test"))
        _require_known(taxonomy, test)
        counts = Counter(tag for item in data.exemplars("train") for tag in item.accepted)
        titles = sum(1 for _ in data.exemplars("train"))
        try:
            with console.bar("encoding memory", len(taxonomy) + titles) as bar:
                await filling.fill(
                    stack.projection(), {"tags": taxonomy, "exemplars": data.exemplars("train")}, bar.advance
                )
        finally:
            await filling.save_memories(cache, stack.memories)
        tagger = stack.tagger([await fit(stack, list(data.exemplars("val")))])
        started = time.monotonic()
        with console.bar("tagging", len(test)) as bar:
            results = await tag_all(tagger, [content_of(item) for item in test], bar.advance)
        seconds = time.monotonic() - started
    figures = measure(results, {item.id: frozenset(item.accepted) for item in test}, taxonomy, counts, titles)
    return _method(stack), {
        "name": name_of(stack),
        **{name: round(value, 4 if name == "ece" else 2) for name, value in asdict(figures).items()},
        "tags": len(taxonomy),
        "exemplars": titles,
        "contents": len(test),
        "contents_per_second": round(len(test) / seconds, 1),
        "ran": ran(stack),
    }


def _require_known(taxonomy: Sequence[Tag], test: Sequence[Exemplar]) -> None:
    """Raises UserError for a test title with a tag that is not in the taxonomy and could never be found."""
    known = {tag.id for tag in taxonomy}
    for item in test:
        if strange := sorted(set(item.accepted) - known):
            raise UserError(f"{item.id}: {shorten(strange[0])} is no number of labels.tsv")


def _print(row: Mapping[str, object]) -> None:
    table = Table("measure", "value", title=str(row["name"]))
    for name, value in row.items():
        if isinstance(value, int | float):
            table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    console.stderr.print(table)
