"""Hybrid recall: the gain of BM25 over contents and tags on recall by vectors, and on literal names.

    python bench/hybrid.py ../shared/data/yso-titles [--titles 60000] [--cache .cache/hybrid]

Tags the validation titles, untrained, over a memory of the first --titles training titles, and writes
bench/results/hybrid.json: R@10 and P@1 of each row with 95% intervals, and the difference between each row with `bm25`
and the row without it, with its interval (bootstrap over the titles). raw/hybrid.jsonl has one line per title: its
right tags, and each row's ten best.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from tagbus.stream import quality
from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.components import switched
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import K, content_of, ran, tag_all
from tagbus.stream.config import Settings, TaggerSettings
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.intervals import bootstrap, of_mean
from tagbus.stream.quality import Floats, Ints, Ranked

RESULTS = Path(__file__).parent / "results" / "hybrid.json"
ON: Mapping[str, object] = {"enabled": True}
# Each row, and the row it is compared with.
ROWS: Mapping[str, tuple[Mapping[str, Mapping[str, object]], str | None]] = {
    "vectors": ({}, None),
    "vectors+bm25": ({"bm25": ON}, "vectors"),
    "vectors+literal": ({"literal": ON}, "vectors"),
    "vectors+literal+bm25": ({"literal": ON, "bm25": ON}, "vectors+literal"),
}
FIGURES = ("p_at_1", "ndcg_at_5", "r_at_10")


@dataclass(frozen=True, slots=True)
class Titles:
    """The titles to tag, the numbers of all tags, and their propensities in the training titles."""

    items: Sequence[Exemplar]
    numbers: Mapping[str, int]
    propensity: Floats

    @property
    def truth(self) -> list[Ints]:
        return [np.unique(np.array([self.numbers[tag] for tag in one.accepted], np.int64)) for one in self.items]


def ranked(results: Sequence[TaggedContent], numbers: Mapping[str, int]) -> Ranked:
    indices, scores = np.full((len(results), K), -1, np.int64), np.zeros((len(results), K))
    for row, result in enumerate(results):
        for column, tag in enumerate(result.tags[:K]):
            indices[row, column], scores[row, column] = numbers[tag.id], min(1.0, max(0.0, tag.score))
    return Ranked(indices, scores)


def figures(found: Ranked, titles: Titles) -> dict[str, object]:
    """Figures in percent, with 95% intervals."""
    interval = bootstrap(quality.parts(found, titles.truth, titles.propensity))
    measured = quality.measure(found, titles.truth, titles.propensity)
    between = {name: [round(getattr(end, name), 2) for end in (interval.low, interval.high)] for name in FIGURES}
    return {**{name: round(getattr(measured, name), 2) for name in FIGURES}, "intervals": between}


def gain(found: Ranked, other: Ranked, titles: Titles) -> dict[str, list[float]]:
    """Return each figure's difference to the other row, in points, with its 95% interval."""
    made, before = (quality.parts(one, titles.truth, titles.propensity).over for one in (found, other))
    # The columns of Parts: P@1, P@3, P@5, nDCG@5, R@10.
    points = made[:, [0, 3, 4]] - before[:, [0, 3, 4]]
    low, high = of_mean(points)
    ends = zip(FIGURES, points.mean(axis=0), low, high, strict=True)
    return {name: [round(float(value), 2) for value in values] for name, *values in ends}


def raw(titles: Titles, found: Mapping[str, Ranked]) -> Iterator[str]:
    """Yield the raw lines. Tags are named by their line in labels.tsv, from 0, which is shorter than their ids."""
    for number, right in enumerate(titles.truth):
        best = {name: [int(tag) for tag in one.indices[number] if tag >= 0] for name, one in found.items()}
        yield json.dumps({"right": right.tolist(), **best}, separators=(",", ":")) + "\n"


async def measure(folder: Path, count: int, cache: Path) -> tuple[dict[str, object], list[str]]:
    """Return the report and its raw lines."""
    data = DataFolder(folder)
    train = list(islice(data.exemplars("train"), count))
    tags = data.tags()
    counts = Counter(tag for one in train for tag in one.accepted)
    propensity = quality.propensities(np.array([counts.get(one.id, 0) for one in tags], np.int64), len(train))
    titles = Titles(list(data.exemplars("val")), {one.id: number for number, one in enumerate(tags)}, propensity)
    settings = Settings(tagger=TaggerSettings(tags=K))
    found: dict[str, Ranked] = {}
    rows: list[dict[str, object]] = []
    async with assemble.in_process(settings, cache) as bare:
        await filling.fill(bare.projection(), {"tags": tags, "exemplars": train}, lambda _: None)
        await filling.save_memories(cache, bare.memories)
        for name, (components, before) in ROWS.items():
            async with assemble.over(bare, switched(settings, components)) as stack:
                found[name] = ranked(await _tagged(stack, titles), titles.numbers)
                rows.append({"name": name, **figures(found[name], titles), **ran(stack)})
            if before is not None:
                rows[-1]["over"] = {before: gain(found[name], found[before], titles)}
            print(json.dumps(rows[-1]), flush=True)
    about = {"data": folder.name, "tags": len(tags), "exemplars": len(train), "contents": len(titles.items)}
    return {**about, "split": "val", "rows": rows}, list(raw(titles, found))


async def _tagged(stack: TaggingStack, titles: Titles) -> list[TaggedContent]:
    return await tag_all(stack.uncalibrated(), [content_of(one) for one in titles.items], lambda _: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="labels.tsv, train.tsv[.xz], val.tsv")
    parser.add_argument("--titles", type=int, default=60_000, help="training titles in memory")
    parser.add_argument("--cache", type=Path, default=Path(".cache/hybrid"), help="folder that keeps embeddings")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    report, lines = asyncio.run(measure(arguments.folder, arguments.titles, arguments.cache))
    beside = arguments.out.parent / "raw" / f"{arguments.out.stem}.jsonl"
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text("".join(lines), encoding="utf-8")
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
