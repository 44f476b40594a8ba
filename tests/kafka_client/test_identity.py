"""Which answers of brokers say that a topic was created again."""

from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, Uuid

from tagbus.stream.config import KafkaSettings
from tagbus.stream.kafka import clients, identity
from tagbus.stream.kafka.identity import TopicIds

OLD, NEW, NONE = Uuid(0, 1), Uuid(0, 2), Uuid(0, 0)
MISSING = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> "Told":
    return Told(monkeypatch)


class Told:
    """Gives an answer to each request, and says for which of them the topic counts as created again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._answers: list[Uuid | KafkaException] = []
        monkeypatch.setattr(identity, "EVERY_SECONDS", 0.0)
        monkeypatch.setattr(clients, "quiet_admin", lambda *_: self)

    def describe_topics(self, topics: TopicCollection, request_timeout: float) -> dict[str, "Future[object]"]:
        assert request_timeout > 0
        answer: Future[object] = Future()
        given = self._answers.pop(0)
        if isinstance(given, KafkaException):
            answer.set_exception(given)
        else:
            answer.set_result(SimpleNamespace(topic_id=given))
        return {"content": answer}

    def __call__(self, *answers: Uuid | KafkaException) -> Sequence[int]:
        self._answers = list(answers)
        ids = TopicIds(KafkaSettings(), ["content"])
        found = []
        for number in range(len(answers)):
            assert ids.recreated() == []
            if ids.recreated():
                found.append(number)
        return found


def test_a_topic_with_another_id_was_created_again(told: Told) -> None:
    assert told(OLD, OLD, NEW, NEW) == [2]


def test_a_topic_that_is_missing_for_some_time_was_created_again(told: Told) -> None:
    assert told(OLD, MISSING, MISSING, NEW) == [3]


def test_a_request_that_fails_tells_nothing(told: Told) -> None:
    failed = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert told(failed, OLD, failed, OLD) == []


def test_brokers_that_give_no_ids_and_are_upgraded_one_by_one_have_created_nothing_again(told: Told) -> None:
    assert told(NONE, NONE, OLD, NONE, OLD) == []


def test_a_broker_that_is_behind_the_others_has_not_created_the_topic_again(told: Told) -> None:
    assert told(OLD, NEW, OLD, NEW) == [1]
