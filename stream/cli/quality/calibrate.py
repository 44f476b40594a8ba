"""`tagbus calibrate`: fit confidences."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.evaluation import fit_to, in_force, undecided
from tagbus.stream.app.judge.report import Json, Wanted, draw, text
from tagbus.stream.app.judge.report import report as reported
from tagbus.stream.app.places import files
from tagbus.stream.calibrate import Calibration
from tagbus.stream.cli.tag import Cache, Exemplars, Tags, read_memory, remember
from tagbus.stream.config import Settings, load
from tagbus.stream.errors import UserError, shorten


def calibrate(
    file: Annotated[Path, typer.Argument(help="contents with their right tags: exemplars, one a line")],
    tags: Tags,
    to: Annotated[Path, typer.Option("--out", help="the calibration, JSON")],
    exemplars: Exemplars = None,
    cache: Cache = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="folder for a report on the confidences: JSON, text and PNG")
    ] = None,
    k: Annotated[int, typer.Option("--at", min=1, help="the k of the report's Acc@k and Coverage@k")] = 1,
    accuracy: Annotated[
        float | None, typer.Option("--accuracy", min=0, max=100, help="find the cut for this Acc@k, in percent")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option("--coverage", min=0, max=100, help="find the cut for this Coverage@k, in percent")
    ] = None,
) -> None:
    """Fit the confidence: tag the contents of FILE and learn how often a tag with a given score is right.

    FILE may not hold contents that are among the exemplars: a memory that knows the answers is overconfident.
    A judge is asked about every content and paid for; TAGBUS_BUDGET__ limits this run on its own, beside the workers.
    """
    settings = load()
    if not to.parent.is_dir():
        raise UserError(f"--out {to}: {to.parent} is not a folder, expected a file in an existing folder")
    if report is None and (accuracy is not None or coverage is not None):
        raise UserError("--accuracy and --coverage find a cut for the report, expected --report with them")
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
    """The inputs of a fit."""

    file: Path
    tags: Path
    exemplars: Path | None
    cache: Path | None


def _report(folder: Path, figures: Json) -> None:
    words = text(figures)
    files.write(folder / "report.json", json.dumps(figures, indent=2) + "\n")
    files.write(folder / "report.txt", words)
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
        annotated = await in_force(stack, annotated)
        results = await undecided(stack, annotated)
        fitted = fit_to(stack, results, annotated)
        if wanted is None:
            return fitted, None
        counts = Counter(tag for item in exemplified for tag in item.accepted)
        fit_some = partial(fit_to, stack, annotated=annotated)
        return fitted, reported(results, annotated, counts, fit_some, wanted)
