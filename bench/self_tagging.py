"""Self-tagging: what it costs that a worker writes its own tags back to memory, round after round.

    python bench/self_tagging.py ../shared/data/yso-titles [--people 40000] [--titles 20000] [--rounds 3] [--least 0.8]

Memory holds the first so many training titles as people's. The next so many are tagged in every round, and what reaches
the confidence of `--least` becomes a machine exemplar, as with TAGBUS_TAGGER__WRITE_BACK; the next round sees what the
one before wrote. The components are those of the environment, with the ranker's own calibration; without a ranker
confidences are calibrated on the validation titles. P@1 of the test titles is measured before the first round and after
each. Writes bench/results/self_tagging.json after each round: a row has P@1 in percent, the points lost to the first
row with a 95% interval (bootstrap over the titles), and how many machine exemplars there are and how many of their tags
are right. Ends with code 1 where a round loses more than 0.3 points.

Each text is encoded once; the vectors of people's are kept in --cache for the next run.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import content_of, fit, ran, tag_all
from tagbus.stream.config import load
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.release import Release
from tagbus.stream.index.apply import MemoryRecord
from tagbus.stream.intervals import SAMPLES
from tagbus.stream.tagger import Tagger

RESULTS = Path(__file__).parent / "results" / "self_tagging.json"
COSTS_AT_MOST = 0.3
CHUNK = 2_048
Row = dict[str, object]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labels.tsv, train.tsv[.xz], val.tsv, test.tsv")
    parser.add_argument("--people", type=int, default=40_000, help="training titles with people's tags in memory")
    parser.add_argument("--titles", type=int, default=20_000, help="titles that are tagged in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--least", type=float, default=0.8, help="confidence from which a tag is written back")
    parser.add_argument("--test", type=int, default=10_000, help="test titles at most")
    parser.add_argument("--validation", type=int, default=5_000, help="validation titles at most")
    parser.add_argument("--cache", type=Path, default=Path(".cache/self_tagging"), help="folder that keeps embeddings")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Once:
    """Encodes each text once."""

    encoder: Encoder
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def release(self) -> Release:
        return self.encoder.release

    async def encode(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self.vectors]
        if new:
            self.vectors.update(zip(new, await self.encoder.encode(new), strict=True))
        return np.stack([self.vectors[text] for text in texts])

    async def close(self) -> None:
        await self.encoder.close()


async def tagged(tagger: Tagger, items: Sequence[Exemplar]) -> list[TaggedContent]:
    return await tag_all(tagger, [content_of(one) for one in items], lambda _: None)


async def hits(tagger: Tagger, items: Sequence[Exemplar]) -> NDArray[np.float64]:
    """For each title 100 if its first tag is right, else 0."""
    results = await tagged(tagger, items)
    right = [one.tags[0].id in item.accepted if one.tags else False for one, item in zip(results, items, strict=True)]
    return 100.0 * np.array(right, np.float64)


def interval(lost: NDArray[np.float64]) -> list[float]:
    drawn = np.random.default_rng(0).integers(len(lost), size=(SAMPLES, len(lost)))
    return [round(float(end), 2) for end in np.percentile(lost[drawn].mean(axis=1), (2.5, 97.5))]


def written_back(items: Sequence[Exemplar], results: Sequence[TaggedContent], least: float) -> list[Exemplar]:
    """The machine exemplars that a worker would write."""
    found = []
    for item, result in zip(items, results, strict=True):
        accepted = tuple(tag.id for tag in result.tags if tag.confidence >= least)
        if accepted:
            found.append(item.model_copy(update={"source": "machine", "accepted": accepted}))
    return found


async def remember(stack: TaggingStack, exemplars: Sequence[Exemplar]) -> None:
    projection = stack.projection()
    for start in range(0, len(exemplars), CHUNK):
        some = exemplars[start : start + CHUNK]
        await projection.apply([MemoryRecord("exemplars", encode_record(one), one.id) for one in some])


async def measure(asked: argparse.Namespace) -> list[Row]:
    data = DataFolder(asked.folder)
    train = list(islice(data.exemplars("train"), asked.people + asked.titles))
    people, own = train[: asked.people], train[asked.people :]
    test = list(islice(data.exemplars("test"), asked.test))
    validation = list(islice(data.exemplars("val"), asked.validation))
    truth = {one.id: frozenset(one.accepted) for one in own}
    rows: list[Row] = []
    settings = load()
    async with (
        assemble.in_process(settings, asked.cache) as bare,
        assemble.over(replace(bare, encoder=Once(bare.encoder)), settings) as stack,
    ):
        await filling.fill(stack.projection(), {"tags": data.tags(), "exemplars": people}, lambda _: None)
        await filling.save_memories(asked.cache, stack.memories)
        tagger = stack.tagger([] if stack.components.calibration else [await fit(stack, validation)])
        before = await hits(tagger, test)
        rows.append({"round": 0, "p_at_1": round(float(before.mean()), 2)})
        tell(asked, stack, rows)
        for number in range(1, asked.rounds + 1):
            started = time.process_time()
            machine = written_back(own, await tagged(tagger, own), asked.least)
            await remember(stack, machine)
            pairs = [tag in truth[one.id] for one in machine for tag in one.accepted]
            lost = before - (after := await hits(tagger, test))
            rows.append(
                {
                    "round": number,
                    "p_at_1": round(float(after.mean()), 2),
                    "lost": round(float(lost.mean()), 2),
                    "lost_interval": interval(lost),
                    "machine_exemplars": len(machine),
                    "machine_tags": len(pairs),
                    "machine_tags_right": round(100 * float(np.mean(pairs)), 2) if pairs else None,
                    "cpu_seconds": round(time.process_time() - started, 1),
                }
            )
            tell(asked, stack, rows)
    return rows


def tell(asked: argparse.Namespace, stack: TaggingStack, rows: Sequence[Row]) -> None:
    """Print the newest row, and write all that are there."""
    print(json.dumps(rows[-1]), flush=True)
    about = {"data": asked.folder.name, "people": asked.people, "titles": asked.titles, "least": asked.least}
    report = {**about, "test": asked.test, "costs_at_most": COSTS_AT_MOST, "ran": ran(stack), "rows": rows}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    rows = asyncio.run(measure(arguments()))
    lost = [float(str(row["lost"])) for row in rows if "lost" in row]
    return 0 if max(lost, default=0.0) <= COSTS_AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
