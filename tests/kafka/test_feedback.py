"""People's decisions to exemplars on Apache Kafka, exactly once: killed, rebalanced, undone, withdrawn."""

from collections.abc import Callable, Mapping

import pytest

from tagbus.stream.app.joining.service import joiner_settings
from tagbus.stream.bus.process.join_processor import JoinProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.config import Settings
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.schema import EXAMPLES
from tagbus.stream.errors import UserError
from tagbus.stream.local.worker import LocalWorker
from tests.bus.harness import RunningWorker, settings
from tests.conftest import Broker
from tests.kafka import feedback_log
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

Names = dict[str, str]
Make = Callable[[Mapping[str, Layout]], Names]
COMPACT = {"cleanup.policy": "compact"}
SECONDS = 120
KILLS = 2
COUNT = 300


@pytest.fixture
def names(topics: Make) -> Names:
    layouts: dict[str, Layout] = {"feedback": 3, "feedback_state": (3, COMPACT), "feedback_dead_letters": 1}
    return topics({**layouts, "exemplars": (2, COMPACT)})


@pytest.fixture
def given(kafka: Broker, names: Names) -> Settings:
    own = {"session_seconds": 2, "membership": "static"}
    return settings(kafka.address, names, kafka=own, batch={"contents": 20})


def joiner(given: Settings) -> RunningWorker:
    own = joiner_settings(given)
    return RunningWorker(Worker(own, JoinProcessor(own)))


def settled(given: Settings, run: RunningWorker | None = None) -> None:
    """Wait until the exemplars are those of the log."""
    address, names = given.kafka.brokers, given.topics

    def done() -> bool:
        assert run is None or run.error is None, run and run.error
        expected = feedback_log.replayed(address, names.feedback)
        found = feedback_log.last(address, names.exemplars)
        return {key: one for key, one in expected.items() if one} == {key: one for key, one in found.items() if one}

    wait_until(done, SECONDS, "exemplars as the log says")


def stop(run: RunningWorker) -> None:
    run.worker.stop()
    run.join()
    assert run.error is None, run.error


def test_killed_in_its_work_each_decision_counts_once_and_an_undo_restores_what_was(given: Settings) -> None:
    address, names = given.kafka.brokers, given.topics
    decided = feedback_log.decisions(COUNT, people=20, contents=40)
    half = COUNT // 2
    extra = {"TAGBUS_KAFKA__MEMBERSHIP": "static", "TAGBUS_BATCH__CONTENTS": "5", "TAGBUS_BATCH__SECONDS": "0"}
    for kill in range(KILLS):
        with LocalWorker(given, extra, "feedback") as process:
            process.wait_until_ready()
            before = len(consume_all(address, names.feedback_state))
            part = decided[kill * half // KILLS : (kill + 1) * half // KILLS]
            with feedback_log.trickling(address, names.feedback, part):
                wait_until(lambda seen=before: len(consume_all(address, names.feedback_state)) > seen, SECONDS, "work")  # type: ignore[misc]
                process.process.kill()
                process.process.wait()
    run = joiner(given)
    settled(given, run)
    first = feedback_log.last(address, names.exemplars)
    # More decisions, some of them twice, and then all of these are taken back.
    later = decided[half:]
    feedback_log.send(address, names.feedback, [*later, *later[:50]])
    settled(given, run)
    assert feedback_log.last(address, names.exemplars) != first
    feedback_log.send(address, names.feedback, feedback_log.undone(later))
    settled(given, run)
    stop(run)

    again = feedback_log.last(address, names.exemplars)
    assert {key: one for key, one in again.items() if one} == {key: one for key, one in first.items() if one}
    feedback_log.each_once(address, names.feedback, names.feedback_state)
    kept = feedback_log.ids(consume_all(address, names.feedback_state))
    assert len(kept) == len(set(kept)) == COUNT + len(later)


def test_two_joiners_share_the_partitions_and_take_over_each_others_state(given: Settings) -> None:
    address, names = given.kafka.brokers, given.topics
    decided = feedback_log.decisions(200, people=5, contents=20, seed=3)
    dynamic = given.model_copy(update={"kafka": given.kafka.model_copy(update={"membership": "dynamic"})})
    other = dynamic.model_copy(update={"kafka": dynamic.kafka.model_copy(update={"instance": "two"})})
    first = joiner(dynamic).until_ready()
    feedback_log.send(address, names.feedback, decided[:80])
    second = joiner(other).until_ready()
    feedback_log.send(address, names.feedback, decided[80:140])
    settled(given, first)
    stop(first)
    feedback_log.send(address, names.feedback, decided[140:])
    settled(given, second)
    stop(second)
    feedback_log.each_once(address, names.feedback, names.feedback_state)


def test_a_withdrawn_content_is_forgotten_and_what_cannot_be_read_is_set_aside(given: Settings) -> None:
    address, names = given.kafka.brokers, given.topics
    (one,) = feedback_log.decisions(1, people=1, contents=1)
    one = one.model_copy(update={"title": "Secret"})
    run = joiner(given)
    feedback_log.send(address, names.feedback, [one])
    wait_until(lambda: feedback_log.last(address, names.exemplars).get("c0"), SECONDS, "the exemplar")
    produce(address, names.feedback, [(b"c0", None, []), (b"c0", b"{", [])])
    wait_until(lambda: consume_all(address, names.feedback_dead_letters), SECONDS, "the dead letter")
    stop(run)
    assert feedback_log.last(address, names.exemplars) == {"c0": None}
    assert consume_all(address, names.feedback_state)[-1].value() is None


def test_a_state_with_fewer_partitions_is_refused(kafka: Broker, topics: Make) -> None:
    names = topics({"feedback": 2, "feedback_state": (1, COMPACT), "feedback_dead_letters": 1, "exemplars": 1})
    run = joiner(settings(kafka.address, names))
    run.join()
    assert isinstance(run.error, UserError)
    assert f"topic {names['feedback_state']} has 1 partitions, expected at least the 2 of" in str(run.error)


def test_a_decision_is_read_as_it_is_published(given: Settings) -> None:
    """The schema's own example, through the joiner."""
    example = EXAMPLES["feedback"]
    assert isinstance(example, Decision)
    run = joiner(given)
    feedback_log.send(given.kafka.brokers, given.topics.feedback, [example])
    wait_until(lambda: feedback_log.last(given.kafka.brokers, given.topics.exemplars).get("article-17"), SECONDS)
    stop(run)
