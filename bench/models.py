"""Contents per CPU second of the trained pipeline and of Annif's Omikuji project: same titles, same cores, one run.

    python bench/models.py [--rows light,light-trees,full-int8] [--models .cache/models]
                           [--data ../shared/data/yso-titles] [--count 4096]

Both are trained and warm. They take turns on batches of 256, each idle while the other works, and are measured in CPU
seconds of their processes. The report has the share of each of our components; label trees run in their own threads and
are measured in a separate pass. `make baselines` trains Annif's project.
"""

import argparse
import asyncio
import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tagbus.models.data.corpus import open_corpus
from tagbus.models.data.texts import text_of
from tagbus.models.evaluate.rows import OURS
from tagbus.models.evaluate.systems import settings_of, with_memory
from tagbus.stream.app import assemble
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.evaluation import content_of, ran
from tagbus.stream.contract.events import Content, Exemplar
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.release import Release
from tagbus.stream.rank import trees
from tagbus.stream.rank.trees import RankerPart
from tagbus.stream.recall import second_encoder
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.heads.model import HeadsRecall
from tagbus.stream.recall.labeltree import LabelTreeRecall
from tagbus.stream.recall.lexical.literal import LiteralRecall
from tagbus.stream.recall.tagvectors import TagVectorsRecall
from tagbus.stream.tagger import Failure, Stage, Tagger
from tagbus.stream.tagger.encode import Encode

BATCH = 256
PYTHON = ".cache/baselines/bin/python"
ANNIF = Path(__file__).parent / "peers" / "annif_peer.py"


class Shares:
    """CPU seconds by component. Each component is a function on one thread, so the thread clock measures it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._local = threading.local()

    def watch(self, owner: object, method: str, part: str) -> None:
        """Time this method of an object."""
        setattr(owner, method, self.clocked(getattr(owner, method), part))

    def clocked(self, step: Callable[..., object], part: str) -> Callable[..., object]:
        """`step`, timed; time spent in nested timed calls is counted there only."""

        def called(*arguments: object, **named: object) -> object:
            outer: float = getattr(self._local, "inside", 0.0)
            self._local.inside = 0.0
            started = time.thread_time()
            try:
                return step(*arguments, **named)
            finally:
                spent = time.thread_time() - started
                self.add(part, spent - self._local.inside)
                self._local.inside = outer + spent

        return called

    def add(self, part: str, seconds: float) -> None:
        with self._lock:
            self.seconds[part] += seconds


class TimedEncoder:
    """Times the encoder by the process clock: the tagger does nothing else while it encodes."""

    def __init__(self, encoder: Encoder, shares: Shares) -> None:
        self.release: Release = encoder.release
        self._encoder = encoder
        self._shares = shares

    async def encode(self, texts: Sequence[str]) -> Vectors:
        started = time.process_time()
        vectors = await self._encoder.encode(texts)
        self._shares.add("encoder", time.process_time() - started)
        return vectors

    async def close(self) -> None:
        await self._encoder.close()


def _timed(stage: Stage, stack: TaggingStack, shares: Shares) -> Stage:
    return Encode(TimedEncoder(stack.encoder, shares)) if isinstance(stage, Encode) else stage


def watched(stack: TaggingStack, shares: Shares) -> Tagger:
    """A tagger whose components are all timed."""
    shares.watch(stack.memory.tags, "_search", "tags by similarity")
    shares.watch(stack.memory.exemplars, "_search", "neighbours")
    stack = replace(stack, stages=[_timed(stage, stack, shares) for stage in stack.stages])
    for other in stack.recallers:
        if isinstance(other, HeadsRecall):
            other._vocabulary = SimpleNamespace(bags=shares.clocked(other._vocabulary.bags, "heads"))
            shares.watch(other._model._session, "run", "heads")  # type: ignore[attr-defined]
        elif isinstance(other, LiteralRecall):
            shares.watch(other._lexicon, "match", "literal names")
        elif isinstance(other, TagVectorsRecall):
            other._search = SimpleNamespace(best=shares.clocked(other._search.best, "tag vectors"))
        elif other.name == second_encoder.TAGS:
            second = other.ask.__self__  # type: ignore[attr-defined]
            second._search = SimpleNamespace(best=shares.clocked(second._search.best, "second encoder's tags"))
    for replica in (one for part in stack.parts.values() for one in part.replicas):
        shares.watch(replica.encoder, "_run", "second encoder's encoder")
        shares.watch(replica.memory.exemplars, "_search", "second encoder's neighbours")
    part = stack.parts.get(trees.NAME)
    if isinstance(part, RankerPart):
        ranker = part.ranker
        shares.watch(ranker, "draw", "features")
        shares.watch(ranker, "rate", "features")
        shares.watch(ranker._session, "run", "trees")
    return stack.uncalibrated()


async def alone(stack: TaggingStack, items: Sequence[Exemplar], shares: Shares) -> None:
    """Measure the label trees separately: Omikuji predicts in its own threads."""
    for forest in (other for other in stack.recallers if isinstance(other, LabelTreeRecall)):
        vectors = np.zeros((0, 0), np.float32)
        started = time.process_time()
        for start in range(0, len(items), BATCH):
            some = items[start : start + BATCH]
            await forest.recall(Query([item.id for item in some], [text_of(item) for item in some], vectors))
        shares.add("label trees", time.process_time() - started)


async def measure(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    row = next(row for row in OURS if row.name == name)
    settings = settings_of(row, arguments.models)
    corpus = open_corpus(str(arguments.data))
    items = list(corpus.exemplars("test"))[: arguments.count]
    shares = Shares()
    ours = annif = 0.0
    async with with_memory(settings, corpus, arguments.cache) as bare, assemble.over(bare, settings) as stack:
        tagger = watched(stack, shares)
        with annif_process(arguments.models / "annif-bonsai" / "project") as process:
            await tagger.tag([content_of(item) for item in items[:BATCH]])
            ask(process, [text_of(item) for item in items[:BATCH]])
            shares.seconds.clear()
            for start in range(0, len(items), BATCH):
                some = items[start : start + BATCH]
                contents: list[Content] = [content_of(item) for item in some]
                before = time.process_time()
                results = await tagger.tag(contents)
                ours += time.process_time() - before
                assert not any(isinstance(result, Failure) for result in results)
                annif += ask(process, [text_of(item) for item in some])
        await alone(stack, items, shares)
        points = await stack.memory.exemplars.count()
        what = ran(stack)
    spent = {**shares.seconds, "rest": ours - sum(shares.seconds.values())}
    return {
        "row": row.name,
        "ran": what,
        "exemplars": points,
        "contents": len(items),
        "tagbus_per_cpu_second": round(len(items) / ours, 1),
        "annif_per_cpu_second": round(len(items) / annif, 1),
        "tagbus_over_annif": round(annif / ours, 3),
        "cpu_ms_a_content": {part: round(1000 * seconds / len(items), 3) for part, seconds in spent.items()},
        "share_of_cpu_time": {part: round(seconds / ours, 3) for part, seconds in spent.items()},
    }


def annif_process(folder: Path) -> "subprocess.Popen[str]":
    command = [PYTHON, str(ANNIF), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


def ask(process: "subprocess.Popen[str]", texts: Sequence[str]) -> float:
    """Return Annif's CPU seconds for these texts."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(texts) + "\n")
    process.stdin.flush()
    # Omikuji logs to standard output.
    for line in process.stdout:
        if line.startswith("cpu "):
            return float(line.split()[1])
    raise RuntimeError(f"Annif ended with {process.wait()}")


def kept(path: Path, measured: set[str]) -> list[dict[str, object]]:
    """The rows of an earlier run that this one has not measured. Each row has Annif's figure of its own run."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if row["row"] not in measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="light,light-trees,full-int8")
    parser.add_argument("--models", type=Path, default=Path(".cache/models"))
    parser.add_argument("--data", default="../shared/data/yso-titles")
    parser.add_argument("--cache", type=Path, default=Path(".cache/evaluate"))
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=Path("bench/results/models-speed.json"))
    arguments = parser.parse_args()
    found = [asyncio.run(measure(name, arguments)) for name in arguments.rows.split(",")]
    report = {"rows": [*kept(arguments.out, {str(row["row"]) for row in found}), *found]}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
