"""`tagbus run` with a judge and a budget: the process that users start, Apache Kafka itself, a real HTTP server."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tagbus.stream import calibrate
from tagbus.stream.config import Settings
from tagbus.stream.contract.budget import Spending, decode_spending
from tagbus.stream.contract.codec import Tombstone, decode_tagged, encode_record
from tagbus.stream.contract.events import Degraded, Tag, TaggedContent
from tagbus.stream.contract.release import LEAST, MOST, Fingerprint, JudgeFit, Knots
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.kafka.message import record_of
from tagbus.stream.llm.component import version_of
from tagbus.stream.local.worker import LocalWorker
from tests.bus.harness import event, exactly_once, outcome, settings, until_all_out
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.llm import answers
from tests.llm.scripted import Request, Say, Server, routed, serving
from tests.support import Layout, consume_all, produce

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
SECONDS = 120
COMPACT = {"cleanup.policy": "compact"}
WORDS = ("bees", "honey", "hives", "wax")
# What an answer says that it took, and what a worker has in flight at most.
TOKENS, IN_FLIGHT = 210, 4
# Each takes some 5 CPU seconds; ten are `TAGBUS_TEST_KILLS=10 pytest tests/kafka/test_judge.py`.
KILLS = int(os.environ.get("TAGBUS_TEST_KILLS", "3"))
SAME = Knots(scores=(LEAST, MOST), probabilities=(LEAST, MOST))


def likes_hives(text: str) -> float:
    """And knows what the probe asks."""
    if "Cats" in text or "Nuclear" in text:
        return answers.right_of_cats(text)
    return 0.9 if "hives" in text else 0.1


@dataclass
class Script:
    """A judge that likes hives. After a number of questions about contents it kills the worker that asks."""

    asked: int = 0
    worker: LocalWorker | None = None
    deadly: int = 0
    answer: Callable[[Request], Say] = field(default_factory=lambda: answers.openai_decisions(likes_hives))

    def __call__(self, request: Request) -> Say:
        self.asked += 1
        self.deadly -= 1
        if self.deadly == 0 and self.worker is not None:
            os.kill(self.worker.process.pid, signal.SIGKILL)
        return self.answer(request)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def judge(script: Script) -> Iterator[Server]:
    with serving(routed(decisions=script, models=answers.models("gpt-6-luna"))) as server:
        yield server


@pytest.fixture
def names(topics: Make) -> dict[str, str]:
    layouts: dict[str, Layout] = {"content": 2, "tagged": 2, "dead_letters": 2, "feedback": 1}
    compacted = ("tags", "exemplars", "knowledge", "releases", "budget")
    return topics({**layouts, **dict.fromkeys(compacted, (1, COMPACT)), "versions": (2, COMPACT)})


class Stream:
    """Topics with tags, a judge, and workers one after the other that may spend so many tokens together."""

    def __init__(self, broker: Broker, names: dict[str, str], judge: Server, folder: Path) -> None:
        self.address, self.names, self._judge = broker.address, names, judge
        self.given: Settings = settings(
            self.address, names, llm={"url": judge.url, "model": "gpt-6-luna", "watch_seconds": 0}
        )
        self._calibration = folder / "calibration.json"
        release = load_release(default_folder()).name
        path = Fingerprint(release, "recall+judge", {"judge": version_of(self.given)})
        fit = JudgeFit(
            before=SAME, said=SAME, offset=0.0, slope=0.1, weight=1.0, pairs=0, loss_without=0.0, loss_with=0.0
        )
        calibrate.with_judge(calibrate.uncalibrated(path), fit).save(self._calibration)
        tags = [encode_record(Tag(id=word, name=word)) for word in WORDS]
        produce(self.address, names["tags"], [(one.key, one.value, []) for one in tags])

    def publish(self, count: int) -> None:
        """Contents that all tags are candidates of, each another question."""
        text = "Bees make honey and wax in hives, number {}."
        contents = [(f"c{number}", event(f"c{number}", text.format(number))) for number in range(count)]
        produce(self.address, self.names["content"], [(name.encode(), value, []) for name, value in contents])

    @contextmanager
    def worker(self, tokens: int) -> Iterator[LocalWorker]:
        """A worker of the group, with this limit a day."""
        given = {
            "LLM__URL": self._judge.url,
            "LLM__MODEL": "gpt-6-luna",
            "LLM__WATCH_SECONDS": "0",
            "LLM__IN_FLIGHT": str(IN_FLIGHT),
            "BUDGET__TOKENS_PER_DAY": str(tokens),
            "TAGGER__CALIBRATION": str(self._calibration),
            "KAFKA__SESSION_SECONDS": "6",
            "BATCH__CONTENTS": "5",
            "BATCH__IN_FLIGHT": "1",
            "BATCH__SECONDS": "0.05",
            # No single content is to blame for that many kills.
            "TRIAGE__DEADLY_STARTS": "100",
        }
        with LocalWorker(self.given, {f"TAGBUS_{name}": value for name, value in given.items()}) as worker:
            yield worker

    def results(self) -> list[TaggedContent]:
        found = [decode_tagged(record_of(message)) for message in consume_all(self.address, self.names["tagged"])]
        return [one for one in found if isinstance(one, TaggedContent)]

    def spent(self) -> int:
        """Tokens that the topic has as spent or reserved."""
        latest: dict[bytes | None, Spending] = {}
        for message in consume_all(self.address, self.names["budget"]):
            event = decode_spending(record_of(message))
            if not isinstance(event, Tombstone):
                latest[record_of(message).key] = event
        return sum(one.spent.tokens + one.reserved.tokens for one in latest.values())


@pytest.fixture
def stream(kafka: Broker, names: dict[str, str], judge: Server, tmp_path: Path) -> Stream:
    return Stream(kafka, names, judge, tmp_path)


def test_contents_are_judged_while_the_budget_lasts_and_the_others_when_there_is_more(
    stream: Stream, script: Script, tagbus: Cli
) -> None:
    limit, count = 4000, 40
    stream.publish(count)
    with stream.worker(limit) as worker:
        worker.wait_until_ready()
        until_all_out(stream.address, stream.names, count, SECONDS)
        worker.stop()
    # Judged results are marked as such, and the others carry the reason
    first = {one.id: one for one in stream.results()}
    judged = {name for name, one in first.items() if "judge" in one.path}
    assert len(first) == count
    assert 4 <= len(judged) <= limit / TOKENS
    for name, one in first.items():
        if name in judged:
            assert (one.tags[0].id, one.tags[0].stage, one.degraded) == ("hives", "judge", ())
            assert one.tags[0].evidence.scores["judge"] == 0.9
            assert one.tags[0].evidence.unjudged is not None
            assert (one.versions.llm, one.versions.prompt) == ("gpt-6-luna-2026-10-06", "v1")
            assert one.usage is not None
            assert (one.usage.calls, one.usage.tokens_in) == (1, TOKENS)
        else:
            assert one.degraded == (Degraded(stage="judge", reason="budget"),)
            assert one.tags
    assert script.asked * TOKENS <= stream.spent() <= limit + IN_FLIGHT * TOKENS
    # When there is more to spend, they are sent through again
    again = tagbus("retag", "--degraded", "--send", settings=variables(stream))
    assert again.code == 0
    assert f"sent again: {count - len(judged)} (degraded)" in again.err
    with stream.worker(10 * limit) as worker:
        worker.wait_until_ready()
        until_all_out(stream.address, stream.names, 2 * count - len(judged), SECONDS)
        worker.stop()
    last = {one.id: one for one in stream.results()}
    assert all("judge" in one.path and one.degraded == () for one in last.values())
    assert all(last[name] == first[name] for name in judged)
    exactly_once(stream.address, stream.names)
    assert tagbus("retag", "--degraded", settings=variables(stream)).err.rstrip().endswith("with --send: 0 (degraded)")


def test_killed_again_and_again_it_spends_no_more_than_the_budget_and_loses_nothing(
    stream: Stream, script: Script
) -> None:
    limit = 4000 * (KILLS + 1)
    # More than it can pay for.
    count = limit // TOKENS + 20
    stream.publish(count)
    for _ in range(KILLS):
        with stream.worker(limit) as worker:
            # Each asks what the server is good for, then about contents, a batch or two of them.
            script.worker, script.deadly = worker, 8
            assert worker.process.wait(SECONDS) == -signal.SIGKILL, worker.tail()
    script.worker = None
    with stream.worker(limit) as worker:
        worker.wait_until_ready()
        until_all_out(stream.address, stream.names, count, SECONDS)
        worker.stop()
    assert script.asked > 8 * KILLS
    # What was out is the most that may have gone beyond: an answer may say more than was reserved for it
    assert script.asked * TOKENS <= stream.spent() <= limit + IN_FLIGHT * TOKENS
    reasons = Counter(tuple(reason.reason for reason in one.degraded) for one in stream.results())
    assert reasons.keys() == {(), ("budget",)}
    exactly_once(stream.address, stream.names)
    assert consume_all(stream.address, stream.names["dead_letters"]) == []
    assert max(outcome(stream.address, stream.names).values()) == 1


def variables(stream: Stream) -> dict[str, str]:
    """Settings of a command."""
    given = {f"TOPICS__{name.upper()}": value for name, value in stream.names.items()}
    return {"KAFKA__BROKERS": stream.address, **given}
