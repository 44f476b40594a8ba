"""LLM4Tag's recall metrics: the gain of C2C2T on C2T among 20 candidates (arXiv 2502.13481, table 3).

    python bench/recall.py ../shared/data/yso-titles [--titles 60000] [--cache .cache/hybrid]

Looks up the test titles in a memory of the first --titles training titles and all tags, without a threshold on content
and tag, and counts right tags among the candidates: #Right is their mean number, HR@k the percentage of titles with at
least k. Writes bench/results/recall.json with 95% intervals (bootstrap over the titles); raw/recall.jsonl has one line
per title: its number of right tags, and each row's numbers of right tags and of candidates.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.config import RecallSettings, Settings
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.encoder.release import content_text
from tagbus.stream.intervals import of_mean
from tagbus.stream.memory.hits import NO_HITS
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.neighbours import Reach, Seen

RESULTS = Path(__file__).parent / "results" / "recall.json"
BATCH = 256
CANDIDATES = 20
# On the paper's own data, with another encoder: only the direction is comparable.
PAPER = {"c2t": {"right": 4.48}, "c2t+c2c2t": {"right": 5.37}}


@dataclass(frozen=True, slots=True)
class Row:
    """The most candidates by each meta-path, and of both together."""

    what: str
    c2t: int
    c2c2t: int
    kept: int = CANDIDATES


ROWS: Mapping[str, Row] = {
    "c2t": Row("C2T alone, 20", 20, 0),
    "c2t+c2c2t": Row("C2T 15 and C2C2T 5, as in the paper; a tag found by both counts once", 15, 5),
    "c2t+c2c2t, best 20": Row("of C2T 20 and C2C2T 20 the 20 with the best scores (RAE-XMC)", 20, 20),
}


def found_by(row: Row, stack: TaggingStack, seen: Sequence[Seen]) -> list[list[str]]:
    """Return the candidates of each title."""
    limits = {"c2t_threshold": -1.0, "c2t_limit": row.c2t, "tag_keys": CANDIDATES, "c2c2t_limit": max(1, row.c2c2t)}
    settings = RecallSettings.model_validate(limits)
    graph = GraphRecall(stack.memory.tags, stack.memory.exemplars, stack.release.recall, settings)
    if not row.c2c2t:
        seen = [replace(one, near=NO_HITS, machine=np.zeros(0, np.bool_)) for one in seen]
    scores = [one.scores for one in graph.score(seen)]
    return [sorted(one, key=lambda tag: (-one[tag], tag))[: row.kept] for one in scores]


def figures(right: NDArray[np.int64], candidates: NDArray[np.int64]) -> dict[str, object]:
    """The metrics, each with its 95% interval. `right`, `candidates`: int64 [n], of each title."""
    columns = np.column_stack([right, *(100 * (right >= k) for k in (1, 2, 3)), candidates]).astype(np.float64)
    low, high = of_mean(columns)
    names = ("right", "hr_at_1", "hr_at_2", "hr_at_3", "candidates")
    values = zip(names, columns.mean(axis=0), low, high, strict=True)
    found = {name: [round(float(value), 3) for value in three] for name, *three in values}
    return {**{name: three[0] for name, three in found.items()}, "intervals": {n: t[1:] for n, t in found.items()}}


async def look(stack: TaggingStack, items: Sequence[Exemplar]) -> list[Seen]:
    """Look up each title's neighbourhood in memory."""
    seen: list[Seen] = []
    reach = Reach(CANDIDATES, stack.release.recall.content_keys)
    for start in range(0, len(items), BATCH):
        some = items[start : start + BATCH]
        vectors = await stack.encoder.encode([content_text(one.title, one.text) for one in some])
        seen += await stack.graph.look([one.id for one in some], vectors, reach)
    return seen


async def measure(folder: Path, count: int, cache: Path) -> tuple[dict[str, object], list[str]]:
    """Return the report and its raw lines."""
    data = DataFolder(folder)
    tags, train = data.tags(), list(islice(data.exemplars("train"), count))
    items = list(data.exemplars("test"))
    truth = [frozenset(one.accepted) for one in items]
    hits: dict[str, NDArray[np.int64]] = {}
    sizes: dict[str, NDArray[np.int64]] = {}
    async with assemble.in_process(Settings(), cache) as stack:
        await filling.fill(stack.projection(), {"tags": tags, "exemplars": train}, lambda _: None)
        await filling.save_memories(cache, stack.memories)
        seen = await look(stack, items)
        for name, row in ROWS.items():
            found = found_by(row, stack, seen)
            hits[name] = np.array([len(right & set(one)) for right, one in zip(truth, found, strict=True)])
            sizes[name] = np.array([len(one) for one in found])
    rows = [{"name": name, "what": ROWS[name].what, **figures(hits[name], sizes[name])} for name in ROWS]
    more = hits["c2t+c2c2t"] - hits["c2t"]
    gain = [float(more.mean()), *map(float, of_mean(more.astype(np.float64)))]
    about = {"data": folder.name, "split": "test", "tags": len(tags), "exemplars": len(train), "contents": len(items)}
    report = {
        **about,
        "right_tags_a_content": round(float(np.mean([len(one) for one in truth])), 3),
        "rows": rows,
        "right_more_by_c2c2t": [round(value, 3) for value in gain],
        "paper": PAPER,
    }
    return report, list(raw(truth, hits, sizes))


def raw(
    truth: Sequence[frozenset[str]], hits: Mapping[str, NDArray[np.int64]], sizes: Mapping[str, NDArray[np.int64]]
) -> Iterator[str]:
    for number, right in enumerate(truth):
        each = {name: [int(hits[name][number]), int(sizes[name][number])] for name in hits}
        yield json.dumps({"right": len(right), **each}, separators=(",", ":")) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="labels.tsv, train.tsv[.xz], test.tsv")
    parser.add_argument("--titles", type=int, default=60_000, help="training titles in memory")
    parser.add_argument("--cache", type=Path, default=Path(".cache/hybrid"), help="folder that keeps embeddings")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    report, lines = asyncio.run(measure(arguments.folder, arguments.titles, arguments.cache))
    beside = arguments.out.parent / "raw" / f"{arguments.out.stem}.jsonl"
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text("".join(lines), encoding="utf-8")
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
