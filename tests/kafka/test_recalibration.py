"""Calibration follows decisions while the joiner runs, on Apache Kafka."""

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from tagbus.stream.app.joining.recalibration import Recalibrator
from tagbus.stream.app.joining.service import JoinService
from tagbus.stream.config import Settings
from tagbus.stream.contract.decision import Decision, JudgedTag, ShownTag
from tagbus.stream.contract.events import Versions
from tagbus.stream.contract.release import Curve, decode_release, encode_release
from tagbus.stream.index.releases import Releases
from tagbus.stream.kafka.message import record_of
from tests.bus.harness import RunningWorker, settings
from tests.conftest import Broker
from tests.kafka.feedback_log import START, send
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
COMPACT = {"cleanup.policy": "compact"}
VERSIONS = Versions(release="r-1", taxonomy={}, calibration="none")
SECONDS = 120


@pytest.fixture
def given(kafka: Broker, topics: Make) -> Settings:
    layouts: dict[str, Layout] = {"feedback": 2, "feedback_state": (2, COMPACT), "feedback_dead_letters": 1}
    names = topics({**layouts, "exemplars": (1, COMPACT), "releases": (1, COMPACT)})
    return settings(kafka.address, names, feedback={"calibrate_seconds": 0.1})


def judgements(
    count: int, start: int = 0, *, confidence: float = 0.5, right: Callable[[float], float] = float
) -> list[Decision]:
    """Decisions on a tag each, right with probability `right(score)`, shown with this confidence."""
    chance = random.Random(5)  # noqa: S311 - not a secret
    found = []
    for number in range(start, start + count):
        score = chance.random()
        side = "accepted" if chance.random() < right(score) else "rejected"
        shown = ShownTag(tag="t", rank=1, score=score, confidence=confidence, stage="recall")
        base = Decision(
            id=f"c{number}", decision=f"d{number}", who="ann", mode="review", time=START + timedelta(seconds=number)
        )
        fields = {"shown": (shown,), "versions": VERSIONS, "path": ("prepare", "encode", "recall"), "title": "Bees"}
        found.append(base.model_copy(update={**fields, side: ("t",)}))
    return found


def curves(given: Settings) -> list[Curve]:
    found = [decode_release(record_of(one)) for one in consume_all(given.kafka.brokers, given.topics.releases)]
    return [one for one in found if isinstance(one, Curve)]


async def fits(monkeypatch: pytest.MonkeyPatch, given: Settings) -> None:
    """Run it until it has fitted, and published what is better."""
    done = threading.Event()

    def fit(self: Recalibrator, releases: Releases) -> None:
        original(self, releases)
        done.set()

    original = Recalibrator._fit
    with monkeypatch.context() as patch:
        patch.setattr(Recalibrator, "_fit", fit)
        running = asyncio.create_task(Recalibrator(given, lambda: True).run())
        async with asyncio.timeout(SECONDS):
            while not done.is_set():
                assert not running.done(), running.result()
                await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_better_curve_is_published_and_a_worse_one_never(
    given: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, names = given.kafka.brokers, given.topics
    send(address, names.feedback, judgements(300))
    await fits(monkeypatch, given)
    (first,) = curves(given)
    assert (first.release, first.path, first.fitted_on) == ("r-1", "recall", 240)
    assert first.name.startswith("platt-")
    # The oldest decisions say the opposite of the newest now: what they give would be worse.
    produce(address, names.releases, [(encode_release(first).key, None, [])])
    old = judgements(2000, 1000, confidence=0.5, right=lambda score: 1 - score)
    new = [
        one.model_copy(update={"shown": (one.shown[0].model_copy(update={"confidence": one.shown[0].score}),)})
        for one in judgements(800, 4000)
    ]
    send(address, names.feedback, [*old, *new])
    await fits(monkeypatch, given)
    assert curves(given) == [first]


def test_the_joiner_that_holds_the_first_partition_calibrates(given: Settings) -> None:
    """As `tagbus feedback` runs it, beside the exemplars."""
    service = JoinService(given)
    run = RunningWorker(service.worker).until_ready()
    send(given.kafka.brokers, given.topics.feedback, judgements(400))
    wait_until(lambda: run.error or curves(given), SECONDS, "a curve")
    service.worker.stop()
    run.join()
    assert run.error is None, run.error
    assert service.notes() == []


async def test_the_judge_s_weight_is_fitted_to_decisions_that_carry_what_it_said(
    given: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked about the control share, and changed nothing: what people decide gives it a weight."""
    chance = random.Random(3)  # noqa: S311 - not a secret
    versions = VERSIONS.model_copy(update={"components": {"judge": "m-1"}})

    def judged(one: Decision) -> Decision:
        said = chance.gauss(0.7 if one.accepted else 0.3, 0.1)
        asked = JudgedTag(tag="t", score=one.shown[0].score or 0.0, judge=min(max(said, 0.0), 1.0))
        return one.model_copy(update={"judged": (asked,), "versions": versions})

    send(given.kafka.brokers, given.topics.feedback, [judged(one) for one in judgements(400)])
    await fits(monkeypatch, given)
    found = {one.path: one for one in curves(given)}
    assert found.keys() == {"recall", "recall+judge"}
    assert found["recall"].judge is None
    curve = found["recall+judge"]
    assert curve.components == {"judge": "m-1"}
    assert curve.judge is not None
    assert curve.judge.weight > 0.5
    assert curve.judge.loss_with < curve.judge.loss_without


async def test_without_the_topic_of_releases_nothing_ends(
    given: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = given.model_copy(update={"topics": given.topics.model_copy(update={"releases": "there-is-none"})})
    send(given.kafka.brokers, given.topics.feedback, judgements(300))
    await fits(monkeypatch, lacking)
    assert "is not published: topic there-is-none does not exist" in caplog.text
