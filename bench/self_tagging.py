"""Self-tagging: the quality lost when a worker writes its own tags back to memory, round after round.

    python bench/self_tagging.py ../shared/data/yso-titles [--people 40000] [--titles 20000] [--rounds 3] [--least 0.5]

Memory holds the first --people training titles as people's. The next --titles are tagged in every round, and results
with a confidence of at least `--least` become machine exemplars, as with TAGBUS_TAGGER__WRITE_BACK; the next round sees
those of the previous one. The components are those of the environment, with the ranker's own calibration; without a
ranker confidences are calibrated on the validation titles. P@1 of the test titles is measured before the first round
and after each. Writes bench/results/self_tagging.json after each round: a row has P@1 in percent, the points lost to
the first row with a 95% interval (bootstrap over the titles), and how many machine exemplars there are and how many of
their tags are right. Exits with code 1 if a round loses more than 0.3 points, or writes nothing back: that shows
nothing.

Each text is encoded once, and --cache keeps vectors, curve and rounds: the same command resumes an interrupted run.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from tagbus.stream import calibrate
from tagbus.stream.app import assemble, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import content_of, fit, ran, tag_all
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import load
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.release import Release
from tagbus.stream.index.apply import MemoryRecord
from tagbus.stream.intervals import of_mean
from tagbus.stream.tagger import Tagger

RESULTS = Path(__file__).parent / "results" / "self_tagging.json"
# Settings that change the pipeline.
PIPELINE = ("TAGBUS_ENCODER__", "TAGBUS_COMPONENTS__", "TAGBUS_RECALL__", "TAGBUS_TAGGER__")
COSTS_AT_MOST = 0.3
CHUNK = 2_048
STATE = "self_tagging.json"
Row = dict[str, object]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labels.tsv, train.tsv[.xz], val.tsv, test.tsv")
    parser.add_argument("--people", type=int, default=40_000, help="training titles with people's tags in memory")
    parser.add_argument("--titles", type=int, default=20_000, help="titles that are tagged in each round")
    parser.add_argument("--rounds", type=int, default=3)
    # The untrained pipeline is never 0.8 sure of a title.
    parser.add_argument("--least", type=float, default=0.5, help="confidence from which a tag is written back")
    parser.add_argument("--test", type=int, default=10_000, help="test titles at most")
    parser.add_argument("--validation", type=int, default=5_000, help="validation titles at most")
    parser.add_argument("--cache", type=Path, default=Path(".cache/self_tagging"), help="folder that keeps embeddings")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


class Once:
    """Encodes each text once, even across runs."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._encoder = encoder
        self._path = folder / f"texts-{encoder.release.name}.npz"
        self._vectors: dict[bytes, NDArray[np.float32]] = {}
        self._new = 0
        if self._path.exists():
            with np.load(self._path) as file:
                self._vectors = dict(zip(map(bytes, file["keys"]), file["vectors"], strict=True))

    @property
    def release(self) -> Release:
        return self._encoder.release

    async def encode(self, texts: Sequence[str]) -> Vectors:
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if new:
            self._vectors.update(zip(new, await self._encoder.encode(list(new.values())), strict=True))
            self._new += len(new)
        if self._new >= CHUNK:
            self.save()
        return np.stack([self._vectors[key] for key in keys])

    def save(self) -> None:
        keys = np.frombuffer(b"".join(self._vectors), np.uint8).reshape(-1, 16)
        draft = self._path.with_suffix(".part.npz")
        np.savez(draft, keys=keys, vectors=np.stack(list(self._vectors.values())))
        draft.replace(self._path)
        self._new = 0

    async def close(self) -> None:
        await self._encoder.close()


class State(BaseModel):
    """The state after a round: whether each test title was right at first, and the current machine exemplars."""

    about: dict[str, object]
    rows: list[Row] = []
    before: list[float] = []
    machine: list[Exemplar] = []

    @classmethod
    def of(cls, asked: argparse.Namespace) -> Self:
        about: Row = {name: getattr(asked, name) for name in ("people", "titles", "least", "test", "validation")}
        about["data"] = asked.folder.name
        about["settings"] = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(PIPELINE)}
        path = asked.cache / STATE
        kept = cls.model_validate_json(path.read_bytes()) if path.exists() else None
        return kept if kept and kept.about == about else cls(about=about)


async def tagged(tagger: Tagger, items: Sequence[Exemplar]) -> list[TaggedContent]:
    return await tag_all(tagger, [content_of(one) for one in items], lambda _: None)


async def hits(tagger: Tagger, items: Sequence[Exemplar]) -> NDArray[np.float64]:
    """Return 100 for each title whose first tag is right, else 0."""
    results = await tagged(tagger, items)
    right = [one.tags[0].id in item.accepted if one.tags else False for one, item in zip(results, items, strict=True)]
    return 100.0 * np.array(right, np.float64)


def interval(lost: NDArray[np.float64]) -> list[float]:
    return [round(float(end), 2) for end in of_mean(lost)]


def written_back(items: Sequence[Exemplar], results: Sequence[TaggedContent], least: float) -> list[Exemplar]:
    """Return the machine exemplars that a worker would write."""
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
    data, state = DataFolder(asked.folder), State.of(asked)
    train = list(islice(data.exemplars("train"), asked.people + asked.titles))
    people, own = train[: asked.people], train[asked.people :]
    test = list(islice(data.exemplars("test"), asked.test))
    asked.cache.mkdir(parents=True, exist_ok=True)
    settings = load()
    async with (
        assemble.in_process(settings, asked.cache) as bare,
        assemble.over(replace(bare, encoder=Once(bare.encoder, asked.cache)), settings) as stack,
    ):
        await filling.fill(stack.projection(), {"tags": data.tags(), "exemplars": people}, lambda _: None)
        await filling.save_memories(asked.cache, stack.memories)
        tagger = stack.tagger([] if stack.components.calibration else [await curve(asked, stack, state)])
        await remember(stack, state.machine)
        if not state.rows:
            state.before = (await hits(tagger, test)).tolist()
            state.rows.append({"round": 0, "p_at_1": round(float(np.mean(state.before)), 2)})
            tell(asked, stack, state)
        for number in range(len(state.rows), asked.rounds + 1):
            started = time.process_time()
            state.machine = written_back(own, await tagged(tagger, own), asked.least)
            await remember(stack, state.machine)
            row = figures(np.array(state.before), await hits(tagger, test), state.machine, own)
            state.rows.append({"round": number, **row, "cpu_seconds": round(time.process_time() - started, 1)})
            tell(asked, stack, state)
    return state.rows


async def curve(asked: argparse.Namespace, stack: TaggingStack, state: State) -> Calibration:
    """Return the calibration with people's memory."""
    path = asked.cache / "calibration.json"
    if not state.rows:
        (await fit(stack, list(islice(DataFolder(asked.folder).exemplars("val"), asked.validation)))).save(path)
    return calibrate.load(path, stack.fingerprint())


def figures(
    before: NDArray[np.float64], after: NDArray[np.float64], machine: Sequence[Exemplar], own: Sequence[Exemplar]
) -> Row:
    truth = {one.id: frozenset(one.accepted) for one in own}
    pairs = [tag in truth[one.id] for one in machine for tag in one.accepted]
    return {
        "p_at_1": round(float(after.mean()), 2),
        "lost": round(float((before - after).mean()), 2),
        "lost_interval": interval(before - after),
        "machine_exemplars": len(machine),
        "machine_tags": len(pairs),
        "machine_tags_right": round(100 * float(np.mean(pairs)), 2) if pairs else None,
    }


def tell(asked: argparse.Namespace, stack: TaggingStack, state: State) -> None:
    """Print the newest row, and write all rows."""
    print(json.dumps(state.rows[-1]), flush=True)
    (asked.cache / STATE).write_text(state.model_dump_json(), encoding="utf-8")
    report = {**state.about, "costs_at_most": COSTS_AT_MOST, "ran": ran(stack), "rows": state.rows}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    rows = asyncio.run(measure(arguments()))
    if not all(row["machine_exemplars"] for row in rows[1:]):
        print("nothing was written back: lower --least", file=sys.stderr)
        return 1
    return 0 if max((float(str(row["lost"])) for row in rows[1:]), default=0.0) <= COSTS_AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
