"""`tagbus calibrate` and `tagbus evaluate`: fit confidences and measure quality."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tagbus.stream.app import assemble, console, files, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import K, content_of, fit, measure, name_of, ran, tag_all
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
) -> None:
    """Fit the confidence: tag the contents of FILE, and learn how often a tag with a score like this is right.

    FILE may not hold contents that are among the exemplars: a memory that knows the answer looks surer than it is.
    """
    settings = load()
    if not to.parent.is_dir():
        raise UserError(f"{to}: {to.parent} is no folder; name a file in one for --out")
    fitted = asyncio.run(_calibrate(settings, file, tags, exemplars, cache))
    fitted.save(to)
    pairs_of = f"{fitted.fitted_on} pairs of {fitted.contents} contents"
    console.say(f"{fitted.name} for release {fitted.release}: {pairs_of}, {to}")


async def _calibrate(
    settings: Settings, file: Path, tags: Path, exemplars: Path | None, cache: Path | None
) -> Calibration:
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
        return await fit(stack, annotated)


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
