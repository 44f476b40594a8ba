"""`tagbus calibrate` and `tagbus evaluate`: how sure the tags are, and how good."""

import asyncio
import json
import lzma
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.table import Table

from tagbus.stream import calibrate as calibration
from tagbus.stream import quality
from tagbus.stream.calibrate import Calibration, uncalibrated
from tagbus.stream.cli import build, files, out
from tagbus.stream.cli.tag import Cache, Exemplars, Tags, remember
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Content, Event, Exemplar, Tag, TaggedContent
from tagbus.stream.contract.field_errors import poison
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.tagger import Tagger

BATCH = 256
# Batches tagged at once: one is encoded while the other searches.
AT_ONCE = 2
K = 10

Truth = Mapping[str, frozenset[str]]
E = TypeVar("E", bound=Event)


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
    out.say(f"{fitted.name} for release {fitted.release}: {fitted.fitted_on} pairs of {fitted.contents} contents, {to}")


async def _calibrate(
    settings: Settings, file: Path, tags: Path, exemplars: Path | None, cache: Path | None
) -> Calibration:
    annotated = files.all_of(file, files.exemplar_of)
    known = {item.id for item in files.all_of(exemplars, files.exemplar_of)} if exemplars else set()
    if both := [item.id for item in annotated if item.id in known]:
        raise UserError(
            f"{file}: {shorten(both[0])} is among the exemplars too; take contents that memory does not hold"
        )
    memory = await build.cached_memory(cache, settings)
    async with build.brain(settings, memory) as brain:
        await remember(brain, tags, exemplars)
        if cache is not None:
            await build.save_memory(cache, memory)
        return await fit(brain, annotated)


async def fit(brain: build.Brain, annotated: Sequence[Exemplar]) -> Calibration:
    """The calibration of this memory on contents whose right tags are known."""
    tagger = brain.tagger(uncalibrated(brain.pipeline.name))
    with out.bar("calibrating", len(annotated)) as bar:
        results = await tag_all(tagger, [content_of(item) for item in annotated], bar.advance)
    truth = {item.id: frozenset(item.accepted) for item in annotated}
    scores, right = pairs(results, truth, lambda tag_score, _: tag_score)
    return calibration.fit(scores, right, brain.pipeline.name, len(results))


def content_of(item: Exemplar) -> Content:
    """The content that an exemplar annotates. Raises UserError for one without title and text."""
    return made(Content, item.id, id=item.id, title=item.title, text=item.text)


def made(model: type[E], place: str, **fields: object) -> E:
    """An event from fields that were read. Raises UserError that names `place`, the field and what would be right."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise UserError(f"{place}: {poison(error, model)}") from None


def pairs(
    results: Sequence[TaggedContent], truth: Truth, number: Callable[[float, float], float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Every (content, tag) of the results: `number(score, confidence)` float64 [n], and whether the tag is right."""
    found = [(number(tag.score, tag.confidence), tag.id in truth[one.id]) for one in results for tag in one.tags]
    return np.array([value for value, _ in found], np.float64), np.array([right for _, right in found], np.bool_)


async def tag_all(tagger: Tagger, contents: Sequence[Content], advance: Callable[[int], None]) -> list[TaggedContent]:
    """Tag contents in batches, a few at once, and give the results in order. Raises UserError for one that fails."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(batch: Sequence[Content]) -> list[TaggedContent]:
        async with gate:
            results = await tagger.tag(batch)
        advance(len(batch))
        return [_result(result) for result in results]

    batches = [contents[start : start + BATCH] for start in range(0, len(contents), BATCH)]
    return [result for done in await asyncio.gather(*map(one, batches)) for result in done]


def _result(result: object) -> TaggedContent:
    if not isinstance(result, TaggedContent):
        raise UserError(f"a content could not be tagged: {result}")
    return result


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder in the form of the YSO titles: labels.tsv, train.tsv or train.tsv.xz, val.tsv, test.tsv.

    A label's line is number, URI, name; the other files have text, tab, label numbers with commas.
    """

    folder: Path

    def tags(self) -> list[Tag]:
        """The taxonomy, with numbers as ids."""
        path = self.folder / "labels.tsv"
        rows = enumerate((line.split("\t") for line in _text_lines(path)), start=1)
        return [made(Tag, f"{path}:{number}", id=row[0], name=(*row, "", "")[2]) for number, row in rows]

    def exemplars(self, split: str) -> Iterator[Exemplar]:
        """The titles of a split with their tags. Raises UserError that names the line."""
        path = self.folder / f"{split}.tsv"
        if not path.exists():
            path = self.folder / f"{split}.tsv.xz"
        for number, line in enumerate(_text_lines(path), start=1):
            text, tab, labels = line.partition("\t")
            if not tab:
                raise UserError(f"{path}:{number}: expected text, tab, label numbers with commas")
            yield made(
                Exemplar, f"{path}:{number}", id=f"{split}-{number}", text=text, accepted=tuple(labels.split(","))
            )


def _text_lines(path: Path) -> Iterator[str]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; see `tagbus evaluate --help`") from None
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; expected text in UTF-8") from None


def evaluate(
    folder: Annotated[Path, typer.Argument(help="labels.tsv, train.tsv[.xz], val.tsv, test.tsv")],
    to: Annotated[Path | None, typer.Option("--out", help="also write the figures here, JSON")] = None,
    cache: Annotated[Path, typer.Option("--cache", help="folder that keeps embeddings")] = Path(".cache/evaluate"),
) -> None:
    """Tag test.tsv with the memory of train.tsv and print the quality; the calibration is fitted on val.tsv."""
    row = asyncio.run(_evaluate(load(), DataFolder(folder), cache))
    _print(row)
    report = {"method": METHOD, "rows": [row]}
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(json.dumps(report))


METHOD = (
    "Memory of all training titles and all tags, C2T and C2C2T with RAE-XMC scores, nothing trained; confidence by "
    "isotonic regression on val.tsv. P, nDCG, R and PSP (A 0.55, B 1.5) in percent, ECE of the ten best tags of each "
    "test title as a fraction in 15 bins of equal width."
)


async def _evaluate(settings: Settings, data: DataFolder, cache: Path) -> dict[str, str | float]:
    settings = settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": K})})
    memory = await build.cached_memory(cache, settings)
    async with build.brain(settings, memory) as brain:
        taxonomy = data.tags()
        test = list(data.exemplars("test"))
        _require_known(taxonomy, test)
        counts = Counter(tag for item in data.exemplars("train") for tag in item.accepted)
        titles = sum(1 for _ in data.exemplars("train"))
        try:
            with out.bar("encoding memory", len(taxonomy) + titles) as bar:
                await build.fill(
                    brain.projection(), {"tags": taxonomy, "exemplars": data.exemplars("train")}, bar.advance
                )
        finally:
            await build.save_memory(cache, memory)
        tagger = brain.tagger(await fit(brain, list(data.exemplars("val"))))
        started = time.monotonic()
        with out.bar("tagging", len(test)) as bar:
            results = await tag_all(tagger, [content_of(item) for item in test], bar.advance)
        seconds = time.monotonic() - started
    figures = measure(results, {item.id: frozenset(item.accepted) for item in test}, taxonomy, counts, titles)
    return {
        "name": f"{brain.release.name}, untrained",
        **{name: round(value, 4 if name == "ece" else 2) for name, value in asdict(figures).items()},
        "tags": len(taxonomy),
        "exemplars": titles,
        "contents": len(test),
        "contents_per_second": round(len(test) / seconds, 1),
    }


def _require_known(taxonomy: Sequence[Tag], test: Sequence[Exemplar]) -> None:
    """Raises UserError for a test title with a tag that the taxonomy does not have: nothing could ever find it."""
    known = {tag.id for tag in taxonomy}
    for item in test:
        if strange := sorted(set(item.accepted) - known):
            raise UserError(f"{item.id}: {shorten(strange[0])} is no number of labels.tsv")


def measure(
    results: Sequence[TaggedContent], truth: Truth, taxonomy: Sequence[Tag], counts: Mapping[str, int], titles: int
) -> quality.Quality:
    """The figures of these results. `counts`: how many of `titles` training contents carry each tag."""
    number = {tag.id: index for index, tag in enumerate(taxonomy)}
    ranked = np.full((len(results), K), -1, np.int64)
    confidence = np.zeros((len(results), K), np.float64)
    for row, result in enumerate(results):
        for column, tag in enumerate(result.tags[:K]):
            ranked[row, column] = number[tag.id]
            confidence[row, column] = tag.confidence
    right = [np.array(sorted(number[tag] for tag in truth[result.id]), np.int64) for result in results]
    frequency = np.array([counts.get(tag.id, 0) for tag in taxonomy], np.int64)
    return quality.measure(quality.Ranked(ranked, confidence), right, quality.propensities(frequency, titles))


def _print(row: Mapping[str, str | float]) -> None:
    table = Table("measure", "value", title=str(row["name"]))
    for name, value in row.items():
        if name != "name":
            table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    out.stderr.print(table)
