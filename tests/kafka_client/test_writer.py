"""Records of a command: waited for as long as brokers take any."""

import pytest

from tagbus.stream.config import KafkaSettings
from tagbus.stream.contract.codec import Record
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka import writer
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.mock import MockCluster
from tests.support import unique

RECORDS = 12
# A request holds one record, and the next one waits for its answer, as with a broker that has a quota.
ONE_BY_ONE = {"batch.num.messages": "1", "max.in.flight": "1", "linger.ms": "0"}


def test_a_slow_broker_is_waited_for_while_it_takes_any(
    mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = unique("slow")
    mock_kafka.topic(topic, 1)
    with TopicWriter(KafkaSettings(brokers=mock_kafka.address, options=ONE_BY_ONE), topic) as sent:
        # All together take longer than what one may take.
        monkeypatch.setattr(writer, "FLUSH_SECONDS", 1.5)
        mock_kafka.slow(0.2)
        for number in range(RECORDS):
            sent.send(Record(b"%d" % number, b"{}"))
    assert sent.confirmed == RECORDS


def test_a_broker_that_takes_none_is_given_up(mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = unique("down")
    mock_kafka.topic(topic, 1)
    kafka = KafkaSettings(brokers=mock_kafka.address, options=ONE_BY_ONE)
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 1.0)

    def send() -> None:
        with TopicWriter(kafka, topic) as sent:
            mock_kafka.down()
            for _ in range(2):
                sent.send(Record(b"a", b"{}"))

    with pytest.raises(DependencyDown, match="did not confirm 2 records, and none for 1 s"):
        send()
