"""`tagbus evaluate`: quality on contents with known tags, and a page about the mistakes."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.corpus import Corpus
from tagbus.stream.app.data.folders import in_folder, languages_in
from tagbus.stream.app.evaluation import K, content_of, fit, measure, name_of, ran, tag_all, tagged
from tagbus.stream.app.explain.examine import examine
from tagbus.stream.app.explain.explanation import Explanation
from tagbus.stream.app.mistakes.evaluated import About, Evaluated, Tagged
from tagbus.stream.app.mistakes.find import looked_at
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.quality import Quality
from tagbus.stream.tagger import Tagger

if TYPE_CHECKING:
    from tagbus.stream.app.mistakes.page import Render

# Contents that are tagged again together, for their evidence.
BATCH: Final = 64
FIGURES: Final = frozenset(one.name for one in fields(Quality))


@dataclass(frozen=True, slots=True)
class Measured:
    """The tags found for the test contents, the row of figures, its method, and, if a page is requested, the evidence
    of the contents that it shows."""

    evaluated: Evaluated
    row: Mapping[str, object]
    method: str
    explained: Mapping[str, Explanation]


def evaluate(
    folder: Annotated[
        Path, typer.Argument(help="labels.tsv, train.tsv[.xz], val.tsv, test.tsv; or JSON lines as in examples/")
    ],
    to: Annotated[Path | None, typer.Option("--out", help="also write the figures here, JSON")] = None,
    cache: Annotated[Path, typer.Option("--cache", help="folder that keeps embeddings")] = Path(".cache/evaluate"),
    errors: Annotated[
        Path | None, typer.Option("--errors", help="a page about the mistakes, for editors: one HTML file")
    ] = None,
) -> None:
    """Tag the test contents with the memory of the training contents and print the quality.

    The calibration is fitted on the validation contents. A judge is asked and paid for; TAGBUS_BUDGET__ limits this run
    on its own, beside the workers.
    """
    corpus = in_folder(folder)
    if corpus is None:
        raise UserError(f"{folder} has neither labels.tsv nor tags.jsonl; see `tagbus evaluate --help`")
    render = None if errors is None else _render()
    found = asyncio.run(_evaluate(load(), corpus, cache, None if errors is None else languages_in(folder)))
    _print(found.row)
    report = {"method": found.method, "rows": [found.row]}
    typer.echo(json.dumps(report))
    if to is not None:
        files.write(to, json.dumps(report, indent=2) + "\n")
    if errors is not None and render is not None:
        files.write(errors, render(found.evaluated, found.explained, _about(found)))
        console.say(f"{errors}: open it in a browser")


def _about(found: Measured) -> About:
    figures = {name: value for name, value in found.row.items() if name in FIGURES and isinstance(value, float)}
    return About(str(found.row["name"]), found.method, figures)


def _render() -> "Render":
    """The function that renders the page. Raises UserError without jinja2."""
    try:
        from tagbus.stream.app.mistakes.page import render
    except ModuleNotFoundError as error:
        raise UserError(f"--errors needs {error.name}, which is not installed: pip install 'tagbus[llm]'") from None
    return render


def _method(stack: TaggingStack) -> str:
    """The method behind the figures, in words."""
    settings, versions = stack.settings, stack.components.versions
    routes = " and ".join(name for name, on in (("C2T", settings.recall.c2t), ("C2C2T", settings.recall.c2c2t)) if on)
    return (
        f"Memory ({settings.memory.kind}) of all training titles and all tags; recall by {routes or 'neither route'} "
        f"with RAE-XMC scores; components: {', '.join(versions.values()) or 'none'}; path {stack.components.scoring}; "
        "confidence by isotonic regression on the validation contents. P, nDCG, R and PSP (A 0.55, B 1.5) in percent, "
        "ECE of the ten best tags of each test content as a fraction in 15 bins of equal width."
    )


async def _evaluate(settings: Settings, corpus: Corpus, cache: Path, languages: Mapping[str, str] | None) -> Measured:
    """Tag the test contents. `languages`: languages of the contents, by id, if evidence is requested."""
    settings = settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": K})})
    async with assemble.in_process(settings, cache) as stack:
        taxonomy = corpus.tags()
        test = list(corpus.exemplars("test"))
        _require_known(taxonomy, test)
        counts = Counter(tag for item in corpus.exemplars("train") for tag in item.accepted)
        titles = sum(1 for _ in corpus.exemplars("train"))
        try:
            with console.bar("encoding memory", len(taxonomy) + titles) as bar:
                await filling.fill(
                    stack.projection(), {"tags": taxonomy, "exemplars": corpus.exemplars("train")}, bar.advance
                )
        finally:
            await filling.save_memories(cache, stack.memories)
        tagger = stack.tagger([await fit(stack, list(corpus.exemplars("val")))])
        contents = [_content(item, languages or {}) for item in test]
        started = time.monotonic()
        with console.bar("tagging", len(test)) as bar:
            results = await tag_all(tagger, contents, bar.advance)
        seconds = time.monotonic() - started
        truth = {item.id: frozenset(item.accepted) for item in test}
        evaluated = Evaluated.of(contents, truth, results, taxonomy, counts)
        explained = {} if languages is None else await _explained(stack, tagger, looked_at(evaluated))
        figures = measure(results, truth, taxonomy, counts, titles)
        row = {
            "name": name_of(stack),
            **{name: round(value, 4 if name == "ece" else 2) for name, value in asdict(figures).items()},
            "tags": len(taxonomy),
            "exemplars": titles,
            "contents": len(test),
            "contents_per_second": round(len(test) / seconds, 1),
            "ran": ran(stack),
        }
        return Measured(evaluated, row, _method(stack), explained)


def _content(item: Exemplar, languages: Mapping[str, str]) -> Content:
    return content_of(item).model_copy(update={"language": languages.get(item.id)})


async def _explained(stack: TaggingStack, tagger: Tagger, some: Sequence[Tagged]) -> dict[str, Explanation]:
    """The evidence for the found tags of these contents and against the missing ones."""
    explained = {}
    with console.bar("looking for evidence", len(some)) as bar:
        for chunk in files.chunks(some, BATCH):
            found = await tagger.explain_all([one.content for one in chunk])
            for one, outcome in zip(chunk, found, strict=True):
                explained[one.content.id] = await examine(stack, tagged(outcome), one.missing)
                bar.advance(1)
    return explained


def _require_known(taxonomy: Sequence[Tag], test: Sequence[Exemplar]) -> None:
    """Raises UserError for test contents that cannot be measured on: with a tag that is not in the taxonomy and could
    never be found, without any, or with an id that came before."""
    if not test:
        raise UserError("there are no test contents to measure on")
    known, seen = {tag.id for tag in taxonomy}, set[str]()
    for item in test:
        if not item.accepted:
            raise UserError(f"{item.id}: no tag is right for this test content; every one needs at least one")
        if item.id in seen:
            raise UserError(f"{item.id}: two test contents have this id; ids must be unique")
        seen.add(item.id)
        if strange := sorted(set(item.accepted) - known):
            raise UserError(f"{item.id}: {shorten(strange[0])} is not a tag of the taxonomy")


def _print(row: Mapping[str, object]) -> None:
    table = Table("measure", "value", title=str(row["name"]))
    for name, value in row.items():
        if isinstance(value, int | float):
            table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    console.stderr.print(table)
