"""Contents a CPU second of the trained pipeline beside Annif's Omikuji project, same titles, same cores, one run.

    python bench/models.py [--row ranker] [--models .cache/models] [--data ../shared/data/yso-titles] [--count 4096]

Both are trained and warm; batches of 256 go to one and to the other in turn, each waiting while the other works. Both
are counted in CPU seconds of their processes. Of ours, each part's share of the time: it runs alone, so wall time is
the part's own. `make baselines` trains Annif's project.
"""

import argparse
import asyncio
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tagbus.models.data import open_corpus, text_of
from tagbus.models.rows import OURS
from tagbus.models.systems import dressed, filled, settings_of
from tagbus.stream.calibrate import uncalibrated
from tagbus.stream.cli.build import Brain
from tagbus.stream.cli.quality import content_of
from tagbus.stream.contract.events import Content
from tagbus.stream.index.apply import Memory
from tagbus.stream.tagger import Failure

BATCH = 256
PYTHON = ".cache/baselines/bin/python"


class Timed:
    """Stands before a part, and adds up the seconds that its named methods take."""

    def __init__(self, part: object, name: str, methods: Sequence[str], seconds: dict[str, float]) -> None:
        self._part = part
        self._label = name
        self._methods = methods
        self._seconds = seconds

    def __getattr__(self, method: str) -> object:
        found = getattr(self._part, method)
        if method not in self._methods:
            return found

        def called(*arguments: object, **named: object) -> object:
            started = time.perf_counter()
            result = found(*arguments, **named)
            if asyncio.iscoroutine(result):
                return self._awaited(result, started)
            self._seconds[self._label] += time.perf_counter() - started
            return result

        return called

    async def _awaited(self, result: object, started: float) -> object:
        # Recallers run side by side in one thread pool: on a busy loop their times overlap a little.
        value = await result  # type: ignore[misc]
        self._seconds[self._label] += time.perf_counter() - started
        return value


def timed(brain: Brain, seconds: dict[str, float]) -> Brain:
    """The same brain with every part under the clock."""
    memory = Memory(
        Timed(brain.memory.tags, "search of tags", ("search",), seconds),  # type: ignore[arg-type]
        Timed(brain.memory.exemplars, "search of exemplars", ("search",), seconds),  # type: ignore[arg-type]
    )
    learnt = brain.learnt
    if learnt.heads is not None:
        learnt = replace(learnt, heads=Timed(learnt.heads, "heads", ("recall",), seconds))  # type: ignore[arg-type]
    if learnt.ranker is not None:
        learnt.ranker._session = Timed(learnt.ranker._session, "trees", ("run",), seconds)  # type: ignore[assignment]
        ranker = Timed(learnt.ranker, "union, features and trees", ("draw", "rate"), seconds)
        learnt = replace(learnt, ranker=ranker)  # type: ignore[arg-type]
    encoder = Timed(brain.encoder, "encode", ("encode",), seconds)
    return replace(brain, encoder=encoder, memory=memory, learnt=learnt)  # type: ignore[arg-type]


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    row = next(row for row in OURS if row.name == arguments.row)
    settings = settings_of(row, arguments.models)
    corpus = open_corpus(str(arguments.data))
    items = list(corpus.exemplars("test"))[: arguments.count]
    seconds: dict[str, float] = defaultdict(float)
    ours = annif = whole = 0.0
    async with filled(settings, corpus, arguments.cache) as bare, dressed(bare, settings) as brain:
        tagger = timed(brain, seconds).tagger(uncalibrated(brain.pipeline.name))
        with annif_process(arguments.models / "annif-bonsai" / "project") as process:
            await tagger.tag([content_of(item) for item in items[:BATCH]])
            ask(process, [text_of(item) for item in items[:BATCH]])
            seconds.clear()
            for start in range(0, len(items), BATCH):
                some = items[start : start + BATCH]
                contents: list[Content] = [content_of(item) for item in some]
                cpu, wall = time.process_time(), time.perf_counter()
                results = await tagger.tag(contents)
                ours += time.process_time() - cpu
                whole += time.perf_counter() - wall
                assert not any(isinstance(result, Failure) for result in results)
                annif += ask(process, [text_of(item) for item in some])
    return {
        "row": row.name,
        "contents": len(items),
        "tagbus_per_cpu_second": round(len(items) / ours, 1),
        "annif_per_cpu_second": round(len(items) / annif, 1),
        "tagbus_over_annif": round(annif / ours, 3),
        "share_of_wall_time": {name: round(spent / whole, 3) for name, spent in sorted(seconds.items())},
    }


def annif_process(folder: Path) -> "subprocess.Popen[str]":
    command = [PYTHON, "-m", "tagbus.models.annif", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: "subprocess.Popen[str]", texts: Sequence[str]) -> float:
    """CPU seconds of Annif for these texts."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(texts) + "\n")
    process.stdin.flush()
    # Omikuji logs to standard output.
    for line in process.stdout:
        if line.startswith("cpu "):
            return float(line.split()[1])
    raise RuntimeError(f"Annif ended with {process.wait()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", default="ranker")
    parser.add_argument("--models", type=Path, default=Path(".cache/models"))
    parser.add_argument("--data", default="../shared/data/yso-titles")
    parser.add_argument("--cache", type=Path, default=Path(".cache/evaluate"))
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=Path("bench/results/models-speed.json"))
    arguments = parser.parse_args()
    report = asyncio.run(measure(arguments))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
