"""The gain of the ranker's named feature tables: rankers with and without them, cross-validated on the same candidates.

    python bench/ranker_tables.py ../shared/data/yso-titles --rows none named terms named+terms [--titles 12000]
    python bench/ranker_tables.py examples --rows none broader
    python bench/ranker_tables.py ../shared/data/yso-titles --skos ../shared/data/stw/stw-skos.ttl.xz \
        --name yso-under-stw --rows none broader

Works like `tagbus train ranker`: memory and components (of the environment) hold the training contents, and the
candidates are those of the validation contents, each half ranked by trees trained on the other; test contents are not
used. `--skos` gives tags the broader ones that concepts of the same name have in another vocabulary, for a corpus
without a hierarchy. Candidates and rows are kept in `--keep`: a run trains only the rows missing there.

Writes bench/results/ranker_tables.json, a part for each name in `--name`: each row's figures with 95% intervals, the
difference to the row `none` with its interval (bootstrap over the contents), the milliseconds that each table takes
per content, and the bytes that it adds to tables.npz. raw/ranker_tables-NAME.jsonl has one line per content: its right
tags, and each row's ten best, by the tags' numbers.
"""

import argparse
import asyncio
import json
import lzma
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Final, cast

import numpy as np

from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.data.splits import Split
from tagbus.models.data.texts import text_of
from tagbus.models.journal import Journal
from tagbus.models.rank.boost import FIRST, best_of, choose
from tagbus.models.rank.candidates import Candidates, Recipe, Source, TrainingSet, collect
from tagbus.models.rank.statistics import count
from tagbus.stream import quality
from tagbus.stream.app import assemble, components, filling
from tagbus.stream.config import load
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.intervals import bootstrap, of_mean
from tagbus.stream.quality import Ints, Ranked
from tagbus.stream.rank import cross_encoder, trees
from tagbus.stream.rank.features.table import Batch, FeatureTable
from tagbus.stream.rank.features.tables import KINDS, Statistics, TableName, columns
from tagbus.stream.recall.pool import NAMES, Floats, Numbers
from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.entry import Choice, Entry, Remarks

RESULTS = Path(__file__).parent / "results" / "ranker_tables.json"
FIGURES: Final = {"p_at_1": 0, "p_at_3": 1, "p_at_5": 2, "ndcg_at_5": 3, "r_at_10": 4}
NONE: Final = "none"
Json = dict[str, object]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="folder with training and validation contents")
    parser.add_argument("--name", help="of this part of the report; the folder's if unset")
    parser.add_argument("--rows", nargs="+", default=[NONE], help="names of tables joined by +, or none")
    parser.add_argument("--titles", type=int, help="training contents, the first ones; all if unset")
    parser.add_argument("--validation", type=int, help="validation contents, the first ones; all if unset")
    parser.add_argument("--skos", type=Path, help="a Turtle file whose broader concepts count, by equal English names")
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind, averaged")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(".cache/ranker_tables"), help="folder that keeps embeddings")
    parser.add_argument(
        "--keep", type=Path, default=Path(".cache/ranker_tables/kept"), help="folder of candidates and rows"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Under:
    """A corpus cut to its first contents, with these parents of its tags."""

    corpus: Corpus
    first: Mapping[str, int | None]
    parents: Mapping[str, tuple[str, ...]]

    def tags(self) -> list[Tag]:
        tags = self.corpus.tags()
        return [one.model_copy(update={"parents": self.parents.get(one.id, one.parents)}) for one in tags]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        return islice(self.corpus.exemplars(split), self.first.get(split))


def parents_of(tags: Sequence[Tag], path: Path) -> dict[str, tuple[str, ...]]:
    """Return the parents of tags that share a concept's name: the nearest concepts above it with a tag's name."""
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    read = forms.read(path.name, BytesIO(content), "turtle", Choice(language="en"), Remarks())
    concepts = {one.tag.id: one.tag for one in read if isinstance(one, Entry)}
    by_name = {tag.name.casefold(): tag.id for tag in tags}

    def named(concept: str) -> str | None:
        names = (concepts[concept].name, *concepts[concept].aliases) if concept in concepts else ()
        return next((by_name[name.casefold()] for name in names if name.casefold() in by_name), None)

    found: dict[str, set[str]] = {}
    for concept in concepts:
        level, seen = {concept}, {concept}
        while (tag := named(concept)) and level:
            above = {each for one in level if one in concepts for each in concepts[one].parents} - seen
            seen |= above
            found.setdefault(tag, set()).update(each for one in above if (each := named(one)) and each != tag)
            level = {one for one in above if named(one) is None}
    return {tag: tuple(sorted(above)) for tag, above in found.items() if above}


@dataclass(slots=True)
class Timed:
    """A feature table, timed."""

    table: FeatureTable
    contents: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.table.name

    def of(self, batch: Batch) -> Floats:
        started = time.thread_time()
        found = self.table.of(batch)
        self.seconds += time.thread_time() - started
        self.contents += len(batch.pool.texts)
        return found


@dataclass(frozen=True, slots=True)
class Collected:
    """The candidates with the features of all tables, the columns, and what each table costs."""

    found: TrainingSet
    columns: Sequence[str]
    costs: Json

    def save(self, path: Path) -> None:
        parts = {"plain": self.found.plain, "masked": self.found.masked}
        kept = {
            f"{name}.{each.name}": getattr(part, each.name) for name, part in parts.items() for each in fields(part)
        }
        truth, about = self.found.truth, json.dumps({"columns": self.columns, "costs": self.costs})
        np.savez(
            path,
            truth=np.concatenate(truth),
            lengths=np.array([len(one) for one in truth]),
            propensity=self.found.propensity,
            about=np.array(about),
            allow_pickle=False,
            **kept,
        )

    @classmethod
    def read(cls, path: Path) -> "Collected":
        with np.load(path) as file:
            parts = [Candidates(*(file[f"{name}.{each.name}"] for each in fields(Candidates))) for name in PARTS]
            truth = np.split(file["truth"], np.cumsum(file["lengths"])[:-1])
            about = json.loads(str(file["about"]))
            return cls(TrainingSet(parts[0], parts[1], truth, file["propensity"]), about["columns"], about["costs"])


PARTS: Final = ("plain", "masked")


async def candidates(asked: argparse.Namespace, recipe: Recipe) -> Collected:
    """Collect the candidates like `tagbus train ranker`."""
    corpus = open_corpus(asked.corpus)
    parents = parents_of(corpus.tags(), asked.skos) if asked.skos else {}
    corpus = Under(corpus, {"train": asked.titles, "val": asked.validation}, parents)
    settings = components.without(load(), trees.NAME, cross_encoder.NAME)
    async with assemble.in_process(settings, asked.cache) as stack:
        numbers = Numbers([tag.id for tag in corpus.tags()], stack.graph.numbers)
        await filling.fill(
            stack.projection(), {"tags": corpus.tags(), "exemplars": corpus.exemplars("train")}, lambda _: None
        )
        await filling.save_memories(asked.cache, stack.memories)
        statistics = count(corpus, numbers, recipe, settings)
        timed = [Timed(one) for one in statistics.named]
        source = Source(
            stack.graph, stack.recallers, numbers, replace(statistics, named=cast(list[FeatureTable], timed))
        )
        held = list(corpus.exemplars("val"))
        vectors = await stack.encoder.encode([text_of(one) for one in held])
        found = await collect(source, held, vectors, recipe)
        lists = (NAMES, *stack.components.lists)
        versions = stack.components.versions
    bare = len(trees.pack(Statistics(statistics.tables), numbers.ids))
    costs: Json = {
        "data": Path(asked.corpus).name,
        "tags": numbers.known,
        "tags_with_parents": sum(bool(tag.parents) for tag in corpus.tags()),
        "training_contents": statistics.tables.contents,
        "contents": len(held),
        "components": dict(versions),
        "tables": {
            one.name: {
                "ms_a_content": round(1000 * one.seconds / one.contents, 3),
                "bytes": len(trees.pack(Statistics(statistics.tables, [one.table]), numbers.ids)) - bare,
            }
            for one in timed
        },
    }
    return Collected(found, columns(lists, recipe.tables), costs)


def ranked(collected: Collected, row: str, recipe: Recipe, log: Path) -> Ints:
    """Return the ten best tags of each content by a ranker with these tables, or none."""
    tables = [] if row == NONE else [TableName(name) for name in row.split("+")]
    left_out = {column for name in recipe.tables if name not in tables for column in KINDS[name].columns}
    kept = np.array([name not in left_out for name in collected.columns])
    plain, masked = (
        replace(part, features=part.features[:, kept]) for part in (collected.found.plain, collected.found.masked)
    )
    found = replace(collected.found, plain=plain, masked=masked)
    chosen, place = best_of(plain, choose(found, recipe, Journal(log)).scores)
    best = np.full((len(found.truth), FIRST), -1, np.int64)
    best[plain.rows[chosen], place] = plain.tags[chosen]
    return best


def report(collected: Collected, rows: Mapping[str, Ints]) -> Json:
    truth, propensity = collected.found.truth, collected.found.propensity
    parts = {name: quality.parts(Ranked(best, np.zeros(best.shape)), truth, propensity) for name, best in rows.items()}
    shown = []
    for name, best in rows.items():
        measured = quality.measure(Ranked(best, np.zeros(best.shape)), truth, propensity)
        between = bootstrap(parts[name])
        row: Json = {"tables": name, **{each: round(getattr(measured, each), 2) for each in (*FIGURES, "psp_at_5")}}
        row["intervals"] = {
            each: [round(getattr(end, each), 2) for end in (between.low, between.high)] for each in FIGURES
        }
        if name != NONE and NONE in rows:
            row["over_none"] = gain(parts[name].over, parts[NONE].over)
        shown.append(row)
    return {**collected.costs, "rows": shown}


def gain(made: quality.Floats, before: quality.Floats) -> Json:
    """Return each figure's gain in points, and the 95% interval of the difference."""
    points = (made - before)[:, list(FIGURES.values())]
    low, high = of_mean(points)
    ends = zip(FIGURES, points.mean(axis=0), low, high, strict=True)
    return {name: [round(float(value), 2) for value in values] for name, *values in ends}


def lines(truth: Sequence[Ints], rows: Mapping[str, Ints]) -> Iterator[str]:
    for number, right in enumerate(truth):
        best = {name: [int(tag) for tag in one[number] if tag >= 0] for name, one in rows.items()}
        yield json.dumps({"right": right.tolist(), **best}, separators=(",", ":")) + "\n"


def main() -> None:
    asked = arguments()
    name = asked.name or Path(asked.corpus).name
    wanted = {TableName(each) for row in asked.rows if row != NONE for each in row.split("+")}
    keep = asked.keep / name
    keep.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(seeds=asked.seeds, threads=asked.threads, tables=tuple(sorted(wanted)))
    place = keep / "candidates.npz"
    if not place.exists():
        asyncio.run(candidates(asked, recipe)).save(place)
    collected = Collected.read(place)
    if missing := wanted - set(collected.costs["tables"]):  # type: ignore[call-overload]
        raise SystemExit(f"{place} lacks the tables {sorted(missing)}: delete {keep}")
    recipe = replace(recipe, tables=tuple(TableName(each) for each in collected.costs["tables"]))  # type: ignore[attr-defined]
    for row in asked.rows:
        if not (keep / f"{row}.npy").exists():
            started = time.process_time()
            np.save(keep / f"{row}.npy", ranked(collected, row, recipe, keep / f"{row}.jsonl"))
            print(f"{row}: {time.process_time() - started:.0f} CPU seconds", flush=True)
    rows = {path.stem: np.load(path) for path in sorted(keep.glob("*.npy"), key=lambda one: one.stem != NONE)}
    whole = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    whole[name] = report(collected, rows) | {"seeds": asked.seeds}
    asked.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    beside = asked.out.parent / "raw" / f"{asked.out.stem}-{name}.jsonl"
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text("".join(lines(collected.found.truth, rows)), encoding="utf-8")
    print(json.dumps(whole[name]["rows"], indent=1))


if __name__ == "__main__":
    main()
