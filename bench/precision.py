"""float32, float16 and int8 side by side: size, speed, tagging quality, and dependence of a vector on its batch.

    python -P bench/precision.py ../shared/data/yso-titles [--memory 40000] [--titles 2000]

Quality: titles of test.tsv against all tags and a random sample of train.tsv[.xz], by the RAE-XMC score (arXiv
2502.10615, equation 4) over the 50 nearest tags and 100 nearest titles, tau 0.08, lambda 0.5. Exports the three models
first, which needs torch, and -P: without it torch imports bench/triton.py as its own dependency. Writes
bench/results/precision.json.
"""

import argparse
import asyncio
import json
import lzma
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from tagbus.models.export.encoder import Precision, export
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.quality import Ranked, Truth, precision_at

RESULTS = Path(__file__).parent / "results" / "precision.json"
TAU, LAMBDA, TAG_KEYS, CONTENT_KEYS = 0.08, 0.5, 50, 100
SPEED_TEXTS, ROUNDS = 256, 5


@dataclass(frozen=True)
class Titles:
    """Texts and the tag numbers of each."""

    texts: list[str]
    tags: Truth


def read(folder: Path, split: str) -> Titles:
    path = folder / f"{split}.tsv"
    with path.open(encoding="utf-8") if path.exists() else lzma.open(f"{path}.xz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return Titles([row[0] for row in rows], [np.array(row[1].split(","), dtype=np.int64) for row in rows])


def part(titles: Titles, count: int) -> Titles:
    """Return a fixed random sample of `count` titles."""
    chosen = np.random.default_rng(0).permutation(len(titles.texts))[:count]
    return Titles([titles.texts[index] for index in chosen], [titles.tags[index] for index in chosen])


def tagged(queries: Vectors, tags: Vectors, memory: Vectors, accepted: Truth) -> Ranked:
    """Return the top five tags of each query by the RAE-XMC score."""
    indices = np.empty((len(queries), 5), dtype=np.int64)
    for row, query in enumerate(queries):
        by_tag, by_title = tags @ query, memory @ query
        near_tags = np.argpartition(-by_tag, TAG_KEYS)[:TAG_KEYS]
        near_titles = np.argpartition(-by_title, CONTENT_KEYS)[:CONTENT_KEYS]
        scores = np.zeros(len(tags))
        scores[near_tags] = (1 - LAMBDA) * np.exp((by_tag[near_tags] - 1) / TAU)
        for title in near_titles:
            scores[accepted[title]] += LAMBDA * np.exp((by_title[title] - 1) / TAU)
        indices[row] = np.argsort(-scores, kind="stable")[:5]
    return Ranked(indices, np.zeros(indices.shape))


async def speeds(encoders: dict[str, OnnxEncoder], texts: list[str]) -> dict[str, dict[str, float]]:
    """Throughput of each encoder, measured in turns, best of ROUNDS. CPU seconds are least affected by other load."""
    best = {name: {"texts_per_second": 0.0, "texts_per_cpu_second": 0.0} for name in encoders}
    for _ in range(ROUNDS):
        for name, encoder in encoders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for start in range(0, len(texts), 128):
                await encoder.encode(texts[start : start + 128])
            took = {"texts_per_second": time.perf_counter() - wall, "texts_per_cpu_second": time.process_time() - cpu}
            best[name] = {key: max(best[name][key], round(len(texts) / took[key], 1)) for key in took}
    return best


async def neighbours(encoder: OnnxEncoder, texts: list[str]) -> dict[str, float]:
    """The difference between a text's vector encoded alone and in a batch of all texts."""
    together = await encoder.encode(texts)
    alone = np.concatenate([await encoder.encode([text]) for text in texts])
    cosine = float((together * alone).sum(axis=1).min())
    return {"alone_max_difference": float(np.abs(together - alone).max()), "alone_least_cosine": round(cosine, 6)}


def processor() -> dict[str, str | bool | int]:
    path = Path("/proc/cpuinfo")
    flags = path.read_text(encoding="utf-8") if path.exists() else ""
    return {"processor": platform.machine(), "cores": os.cpu_count() or 1, "vnni": "_vnni" in flags}


async def measure(data: Path, memory_size: int, titles_size: int) -> list[dict[str, str | float]]:
    names = [line.split("\t")[2] for line in (data / "labels.tsv").read_text("utf-8").splitlines()]
    memory, titles = part(read(data, "train"), memory_size), part(read(data, "test"), titles_size)
    rows: list[dict[str, str | float]] = []
    exact: Vectors | None = None
    with tempfile.TemporaryDirectory() as scratch:
        sizes, encoders = {}, {}
        for precision in get_args(Precision):
            folder = Path(scratch) / precision
            export(folder, precision)
            sizes[precision] = (folder / "model.onnx").stat().st_size / 1e6
            encoders[precision] = OnnxEncoder(folder)
        fast = await speeds(encoders, titles.texts[:SPEED_TEXTS])
        for name, encoder in encoders.items():
            queries = await encoder.encode(titles.texts)
            exact = queries if exact is None else exact
            ranked = tagged(queries, await encoder.encode(names), await encoder.encode(memory.texts), memory.tags)
            row = {
                "name": name,
                "megabytes": round(sizes[name], 1),
                **fast[name],
                "p_at_1": round(precision_at(ranked, titles.tags, 1), 2),
                "p_at_5": round(precision_at(ranked, titles.tags, 5), 2),
                "mean_cosine_to_float32": round(float((queries * exact).sum(axis=1).mean()), 6),
                **await neighbours(encoder, titles.texts[:SPEED_TEXTS]),
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
            await encoder.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with labels.tsv, train.tsv[.xz], test.tsv")
    parser.add_argument("--memory", type=int, default=40_000, help="number of training titles in memory")
    parser.add_argument("--titles", type=int, default=2_000, help="number of test titles")
    arguments = parser.parse_args()
    if not (arguments.data / "labels.tsv").exists():
        raise SystemExit(f"precision: skipped, {arguments.data} has no labels.tsv")
    rows = asyncio.run(measure(arguments.data, arguments.memory, arguments.titles))
    method = (
        f"{arguments.titles} titles of test.tsv, {arguments.memory} random training titles and all tags in memory; "
        f"RAE-XMC score, tau {TAU}, lambda {LAMBDA}, {TAG_KEYS} tags and {CONTENT_KEYS} titles; speed on {SPEED_TEXTS} "
        f"titles in calls of 128, in turns, best of {ROUNDS}; percent, but for cosines and differences"
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"method": method, "machine": processor(), "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
