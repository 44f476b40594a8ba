"""Results on `tagged` as a worker writes them, replicas of `tagbus views`, and whether what these answer is right."""

import json
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from confluent_kafka import Producer

from tagbus.stream.config import Settings
from tagbus.stream.local.child import free_ports
from tagbus.stream.local.worker import LocalWorker
from tests.kafka.recount import Recount
from tests.support import get, unique

EXAMPLES = Path(__file__).parents[2] / "examples" / "recommenders"
COMPACT = {"cleanup.policy": "compact"}
SESSION_SECONDS = 10
TAGS = [f"t{number}" for number in range(30)]
HOURS = 400
# Whole hours in seconds, of which the last is the one before this one: windows begin and end with hours.
START = (int(time.time()) // 3_600 - HOURS) * 3_600
VERSIONS = {"release": "r1", "taxonomy": {"0": 1}, "calibration": "none"}


def result(content: str, tags: Mapping[str, float], seconds: int = START) -> bytes:
    """A result with these tags and confidences."""
    shown = [
        {"id": one, "name": one.upper(), "score": sure, "confidence": sure, "stage": "rank", "evidence": {}}
        for one, sure in tags.items()
    ]
    moment = datetime.fromtimestamp(seconds, UTC).isoformat()
    return json.dumps({"id": content, "tags": shown, "versions": VERSIONS, "path": ["recall"], "time": moment}).encode()


def producer(address: str) -> Producer:
    """One that writes in transactions, as a worker does."""
    made = Producer(
        {
            "bootstrap.servers": address,
            "partitioner": "murmur2_random",
            "transactional.id": unique("tagger"),
            "compression.type": "lz4",
        }
    )
    made.init_transactions(60)
    return made


class Tagger:
    """Writes results in transactions: first ones, retags, withdrawals, and some of all these twice. Some transactions
    are aborted."""

    def __init__(self, address: str, topic: str, contents: int, seed: int = 7) -> None:
        self._topic, self._chance = topic, random.Random(seed)  # noqa: S311 - not a secret
        self._ids = [f"c/{number} é" for number in range(contents)]
        self._producer = producer(address)

    def write(self, count: int) -> None:
        """So many results, ten a transaction, one transaction in ten aborted."""
        for _ in range(0, count, 10):
            self._producer.begin_transaction()
            for _ in range(10):
                key, value = self._one()
                for _ in range(2 if self._chance.random() < 0.1 else 1):
                    self._producer.produce(self._topic, value, key)
            if self._chance.random() < 0.1:
                self._producer.flush(60)
                self._producer.abort_transaction(60)
            else:
                self._producer.commit_transaction(60)

    def _one(self) -> tuple[bytes, bytes | None]:
        content = self._chance.choice(self._ids)
        if self._chance.random() < 0.15:
            return content.encode(), None
        if self._chance.random() < 0.02:
            content = f"tagbus-helm-test-{content}"
        tags = self._chance.sample(TAGS, self._chance.randrange(6))
        found = {one: round(self._chance.random(), 3) for one in tags}
        return content.encode(), result(content, found, START + 3_600 * self._chance.randrange(HOURS))


def layouts(partitions: int, group: str) -> dict[str, tuple[int, Mapping[str, str]]]:
    """The topics of the views of a group."""
    return {
        f"{group}-changes": (partitions, {}),
        f"{group}-contents-changelog": (partitions, COMPACT),
        f"{group}-tags-changelog": (partitions, COMPACT),
    }


@dataclass
class Replica:
    """One `tagbus views` with its own folder; a static member, so that its successor takes over immediately."""

    settings: Settings
    folder: Path
    name: str
    port: int = field(default_factory=lambda: free_ports(1)[0])
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self.process: LocalWorker | None = None

    def start(self) -> Self:
        """Start its process."""
        own = self.settings.views
        extra = {
            **self.environment,
            "TAGBUS_KAFKA__INSTANCE": self.name,
            "TAGBUS_KAFKA__MEMBERSHIP": "static",
            "TAGBUS_KAFKA__SESSION_SECONDS": str(SESSION_SECONDS),
            "TAGBUS_VIEWS__GROUP": own.group,
            "TAGBUS_VIEWS__PORT": str(self.port),
            "TAGBUS_VIEWS__FOLDER": str(self.folder),
            "TAGBUS_VIEWS__BATCH": str(own.batch),
        }
        self.process = self._stack.enter_context(LocalWorker(self.settings, extra, "views"))
        return self

    def until_ready(self) -> Self:
        """Wait until it is."""
        assert self.process is not None
        self.process.wait_until_ready()
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.process.kill()
        self.process.process.wait()
        self._stack.close()

    def stop(self) -> None:
        """SIGTERM, and its code must be 0."""
        assert self.process is not None
        self.process.stop()
        self._stack.close()

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and body of a path of its API; 0 where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError as error:
            return 0, {"error": str(error)}

    def applied(self) -> float:
        """How many records of `tagged` this process has taken in."""
        assert self.process is not None
        _, text = get(self.process.port, "/metrics")
        found = re.search(r'^tagbus_views_applied_total{view="contents"} ([0-9.e+]+)$', text, re.MULTILINE)
        return 0 if found is None else float(found[1])

    def items(self, path: str) -> list[dict[str, object]]:
        """The items of one page."""
        items = self.get(path)[1].get("items", [])
        assert isinstance(items, list)
        return items

    def pages(self, path: str) -> list[dict[str, object]]:
        """The items of all pages."""
        found, following = list[dict[str, object]](), ""
        while True:
            status, body = self.get(f"{path}{'&' if '?' in path else '?'}limit=7{following}")
            if status != 200:
                return found
            items, after = body["items"], body["next"]
            assert isinstance(items, list)
            found += items
            if after is None:
                return found
            following = f"&after={after}"


@contextmanager
def replicas(
    settings: Settings, folder: Path, count: int, environment: Mapping[str, str] | None = None
) -> Iterator[list[Replica]]:
    """So many replicas, not started; killed at the end."""
    names = [f"replica-{number}" for number in range(count)]
    made = [Replica(settings, folder / name, name, environment=environment or {}) for name in names]
    try:
        yield made
    finally:
        for one in made:
            one._stack.close()


def path_of(kind: str, key: str, rest: str = "") -> str:
    """The path of a content or a tag."""
    return f"/{kind}/{urllib.parse.quote(key, safe='')}{rest}"


def wrong(asked: Sequence[Replica], expected: Recount, ids: Sequence[str]) -> list[str]:
    """What a replica answers that is not as it was counted again, in words. Every key is asked of every replica."""
    found = []
    for one in asked:
        for content in ids:
            status, body = one.get(path_of("contents", content))
            tags = expected.contents.get(content)
            shown = {tag["id"]: tag["confidence"] for tag in body["tags"]} if status == 200 else None  # type: ignore[attr-defined]
            if shown != tags or status not in {200, 404}:
                found.append(f"{one.name}: content {content}: {status} {shown}, expected {tags}")
        for tag in TAGS:
            found += [f"{one.name}: tag {tag}: {words}" for words in _wrong_of_tag(one, expected, tag)]
    return found


def _wrong_of_tag(one: Replica, expected: Recount, tag: str) -> Iterator[str]:
    status, body = one.get(path_of("tags", tag))
    if status != 200 or body["contents"] != expected.counts[tag]:
        yield f"{status} {body}, expected {expected.counts[tag]}"
    confidences = {content: tags[tag] for content, tags in expected.contents.items() if tag in tags}
    newest = [(item["id"], item["confidence"]) for item in one.pages(path_of("tags", tag, "/contents"))]
    if newest != [(content, confidences[content]) for content in expected.newest(tag)]:
        yield f"contents {len(newest)}, the newest first, expected {len(confidences)}"
    surest = one.items(path_of("tags", tag, "/contents?order=confidence&limit=1000"))
    if [item["id"] for item in surest] != expected.surest(tag):
        yield f"contents {len(surest)}, the most confident first, expected {len(confidences)}"
    for length in (86_400, 604_800):
        # Each has some that end in the last two days.
        windows = one.items(path_of("tags", tag, f"/windows?seconds={length}&limit=48"))
        off = [item for item in windows if item != expected.window(tag, item)]
        if off or not windows:
            yield f"{len(off)} of {len(windows)} windows of {length} s, the first of them {off[:1]}"
    others = {str(item["id"]): item["contents"] for item in one.pages(path_of("tags", tag, "/together"))}
    if others != {other: count for (first, other), count in expected.together.items() if first == tag}:
        yield f"together {others}"


def recommended(program: str, *arguments: str) -> list[dict[str, object]]:
    """What an example recommender prints, a JSON object a line."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
