"""The whole system in the demo: a shared memory written by `tagbus index`, views, and both example recommenders. Its
figures: the latency of a content at a steady rate, and whether the views match the published results."""

import importlib.util
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np

from tagbus.stream.acceptance.load import Load
from tagbus.stream.app import console
from tagbus.stream.app.data.examples import example
from tagbus.stream.config import PREFIX, Settings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import UserError
from tagbus.stream.local.child import free_ports
from tagbus.stream.local.command import output_of
from tagbus.stream.local.qdrant import QdrantServer
from tagbus.stream.local.worker import LocalWorker

DEADLINE_SECONDS: Final = 120.0
# Share of the rate that the burst reached, so that contents do not queue.
SHARE: Final = 0.5
STEADY: Final = 150
MOST_A_SECOND: Final = 30.0
STEADY_ID: Final = "demo-steady-"
POLL_SECONDS: Final = 0.1


class Whole:
    """The processes beside worker and joiner; `stack` ends them. Raises UserError if a package is missing."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        # If faust is already imported, its entry in sys.modules has no spec, and find_spec raises an error.
        if "faust" not in sys.modules and importlib.util.find_spec("faust") is None:
            raise UserError("--all needs faust: pip install 'tagbus[views]'")
        self._settings = settings
        self._stack = stack
        console.say("starting a shared memory: Qdrant's engine behind Qdrant's API (no registry has the server)")
        self._qdrant = stack.enter_context(QdrantServer())
        self._views: LocalWorker | None = None
        self._indexer: LocalWorker | None = None
        (self._port,) = free_ports(1)

    @property
    def memory(self) -> dict[str, str]:
        """The settings of the shared memory, as environment variables."""
        return {f"{PREFIX}MEMORY__KIND": "server", f"{PREFIX}MEMORY__URL": self._qdrant.url}

    def index(self, records: int) -> None:
        """Start `tagbus index`, and wait until it has written this many records to the shared memory."""
        self._indexer = self._stack.enter_context(LocalWorker(self._settings, self.memory, "index"))
        with console.bar("indexer: writing tags and exemplars to the shared memory", records) as bar:
            self._indexer.wait_until_ready(lambda remaining: bar.to(records - remaining))

    def view(self) -> None:
        """Start `tagbus views`, and wait until it answers."""
        console.say("starting the views for recommenders (Faust)")
        variables = {f"{PREFIX}VIEWS__PORT": str(self._port)}
        self._views = self._stack.enter_context(LocalWorker(self._settings, variables, "views"))
        self._views.wait_until_ready()

    def figures(
        self, rate: float, results: Mapping[str, TaggedContent], contents: Sequence[Content]
    ) -> dict[str, object]:
        """Compare the views with the published results, run both recommenders, and measure the latency of a content.

        `rate`: contents a second of the burst; `results`: the latest of each content.
        """
        wrong = self._agree(results)
        self._recommend(next(one for one in contents if results[one.id].tags))
        took = np.array(self._steady(contents, min(SHARE * rate, MOST_A_SECOND)))
        p50, p99 = (round(float(np.quantile(took, share)), 3) for share in (0.5, 0.99))
        console.print_line(
            f"from a record's time to its tags, committed: p50 {p50} s, p99 {p99} s over {len(took)} contents at "
            f"{SHARE:.0%} of the rate of the burst"
        )
        return {"views_contents": len(results), "views_wrong": wrong, "p50_seconds": p50, "p99_seconds": p99}

    def stop(self) -> None:
        """Send SIGTERM to views and indexer; each must exit with code 0."""
        for one in (self._views, self._indexer):
            if one is not None:
                one.stop()
        console.say("views and indexer stopped by SIGTERM")

    def _agree(self, results: Mapping[str, TaggedContent]) -> int:
        """Wait until the views return every content as published. Returns how many are wrong at the end."""
        left = set(results)
        deadline = time.monotonic() + DEADLINE_SECONDS
        with console.bar("views: querying every content", len(results)) as bar:
            while left and time.monotonic() < deadline:
                right = {one for one in sorted(left) if self._shown(one) == _confidences(results[one])}
                left -= right
                bar.to(len(results) - len(left))
                if right:
                    deadline = time.monotonic() + DEADLINE_SECONDS
                elif left:
                    time.sleep(POLL_SECONDS)
        return len(left)

    def _shown(self, content: str) -> dict[str, float] | None:
        try:
            key = urllib.parse.quote(content, safe="")
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/contents/{key}", timeout=10) as answer:
                return {tag["id"]: tag["confidence"] for tag in json.load(answer)["tags"]}
        except urllib.error.URLError:
            return None

    def _recommend(self, content: Content) -> None:
        topic, views = (
            ("from_topic.py", self._settings.kafka.brokers, self._settings.topics.tagged, content.id),
            ("from_views.py", f"http://127.0.0.1:{self._port}", content.id),
        )
        for program in (topic, views):
            found = _recommended(*program)
            console.print_line(f"examples/recommenders/{program[0]} for {content.id}: {', '.join(found[:5])}")

    def _steady(self, contents: Sequence[Content], rate: float) -> list[float]:
        """Seconds from each record's time until a read_committed reader has its tags, at a steady rate."""
        load = Load(self._settings, contents, STEADY_ID)
        try:
            with console.bar(f"tagging {STEADY} contents at {rate:.1f} a second", STEADY) as bar:
                load.steady(STEADY, rate, lambda _: bar.to(load.published - len(load.open)))
                took = load.until_out()
                bar.to(STEADY)
                return took
        finally:
            load.close()


def _confidences(result: TaggedContent) -> dict[str, float]:
    return {tag.id: tag.confidence for tag in result.tags}


def _recommended(program: str, *arguments: str) -> list[str]:
    """The contents that an example recommender prints. Raises DependencyDown with its output if it fails."""
    name = f"recommenders/{program}"
    said = output_of(f"examples/{name}", [sys.executable, str(example(name)), *arguments], DEADLINE_SECONDS)
    return [str(json.loads(line)["id"]) for line in said.splitlines()]
