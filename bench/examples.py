"""Quality on the example data: tagbus untrained and with the packaged components, beside classical taggers.

    python bench/examples.py [--models .cache/examples] [--out bench/results/examples.json]

`make bench-examples` trains the classical taggers first. All are given the tags and exemplars of examples/, and tag its
600 contents. raw/examples.jsonl beside the report has one line per content: the right tags, and each row's ten best.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tagbus.models.data.corpus import open_corpus
from tagbus.models.evaluate.measure import EvaluationSet
from tagbus.models.evaluate.rows import Row
from tagbus.models.evaluate.systems import K, settings_of, with_memory
from tagbus.stream import quality
from tagbus.stream.app import assemble
from tagbus.stream.app.components import packaged
from tagbus.stream.app.evaluation import content_of
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.intervals import bootstrap, of_mean
from tagbus.stream.quality import Ranked

CORPUS = Path(__file__).parents[1] / "examples"
BASELINES = {
    "bonsai": "Omikuji Bonsai on TF-IDF",
    "parabel": "Omikuji Parabel on TF-IDF",
    "tfidf-neighbours": "votes of the nearest exemplars by TF-IDF",
}
OURS = [
    Row("untrained", "tagbus, nothing trained: recall from memory", {}),
    Row("trained", "tagbus with the components in the package", packaged()),
]
FIGURES = ("p_at_1", "p_at_5", "ndcg_at_5", "r_at_10")


def baseline(name: str, models: Path) -> Ranked:
    """Return a baseline's stored predictions for the contents."""
    with np.load(models / name / "test.npz", allow_pickle=False) as stored:
        return Ranked(stored["indices"][:, :K].astype(np.int64), stored["scores"][:, :K].astype(np.float64))


async def ours(row: Row, contents: EvaluationSet, cache: Path) -> tuple[Ranked, dict[str, str]]:
    """Return the tagger's results for the contents, and their versions."""
    settings = settings_of(row, cache)
    async with with_memory(settings, open_corpus(str(CORPUS)), cache) as bare, assemble.over(bare, settings) as stack:
        found = await stack.tagger().tag([content_of(item) for item in contents.test])
    results = [result for result in found if isinstance(result, TaggedContent)]
    assert len(results) == len(contents.test)
    versions = results[0].versions
    return contents.ranked(results), {"release": versions.release, **versions.components}


def figures(ranked: Ranked, contents: EvaluationSet) -> dict[str, object]:
    """Figures in percent, with 95% intervals."""
    parts = quality.parts(ranked, contents.truth(contents.test), contents.propensity)
    interval = bootstrap(parts)
    found = quality.measure(ranked, contents.truth(contents.test), contents.propensity)
    between = {name: [round(getattr(end, name), 2) for end in (interval.low, interval.high)] for name in FIGURES}
    return {**{name: round(getattr(found, name), 2) for name in FIGURES}, "intervals": between}


def gain(ranked: Ranked, other: Ranked, contents: EvaluationSet) -> list[float]:
    """Return the gain in P@1 over another row, in points, with its 95% interval: bootstrap over the contents."""
    truth = contents.truth(contents.test)
    points = 100.0 * (quality.hits(ranked, truth)[:, 0].astype(np.int64) - quality.hits(other, truth)[:, 0])
    low, high = of_mean(points)
    return [round(float(value), 2) for value in (points.mean(), low, high)]


def raw(contents: EvaluationSet, found: dict[str, Ranked]) -> Iterator[str]:
    """Yield one line per content: its right tags, and each row's best."""
    names = list(contents.numbers)
    for number, item in enumerate(contents.test):
        best = {name: [names[tag] for tag in ranked.indices[number] if tag >= 0] for name, ranked in found.items()}
        yield json.dumps({"id": item.id, "right": item.accepted, **best}) + "\n"


async def measure(models: Path) -> tuple[dict[str, object], list[str]]:
    """Return the report and its raw lines."""
    contents = EvaluationSet.of(open_corpus(str(CORPUS)))
    found = {name: baseline(name, models) for name in BASELINES}
    rows = [{"name": name, "what": what, **figures(found[name], contents)} for name, what in BASELINES.items()]
    for row in OURS:
        found[row.name], versions = await ours(row, contents, models / "cache")
        over = {"p_at_1_over_bonsai": gain(found[row.name], found["bonsai"], contents), "versions": versions}
        rows.append({"name": row.name, "what": row.what, **figures(found[row.name], contents), **over})
    counts = {"tags": len(contents.numbers), "contents": len(contents.test)}
    exemplars = sum(1 for _ in open_corpus(str(CORPUS)).exemplars("train"))
    return {"corpus": CORPUS.name, **counts, "exemplars": exemplars, "rows": rows}, list(raw(contents, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path(".cache/examples"), help="folder of the predictions")
    parser.add_argument("--out", type=Path, default=Path("bench/results/examples.json"))
    arguments = parser.parse_args()
    report, lines = asyncio.run(measure(arguments.models))
    beside = arguments.out.parent / "raw" / f"{arguments.out.stem}.jsonl"
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text("".join(lines), encoding="utf-8")
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
