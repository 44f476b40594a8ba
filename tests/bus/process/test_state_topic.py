"""A state topic that cannot be read to its end. The broker is librdkafka's mock cluster."""

import pytest

from tagbus.stream.bus.process.version_topic import VersionTopic
from tagbus.stream.errors import TopicRecreated
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.kafka.reader import Chunk, TopicReader
from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import settings
from tests.support import produce, wait_until


def test_a_topic_that_is_created_again_while_it_is_read_ends_the_worker(
    mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client may never reach the end, and the partition would wait for ever."""
    mock_kafka.topic("content.versions", 1)
    produce(mock_kafka.address, "content.versions", [(b"a", b"{}", [])])
    recreated: list[str] = []
    monkeypatch.setattr(TopicIds, "recreated", lambda _: recreated)
    monkeypatch.setattr(TopicReader, "read", lambda reader, *_: Chunk((), reader.positions.copy()))
    versions = VersionTopic(settings(mock_kafka.address))
    versions.assign([("content", 0)])
    assert not versions.ready(("content", 0))
    recreated.append("content.versions")
    with pytest.raises(TopicRecreated, match=r"topic content\.versions was deleted and created again"):
        wait_until(lambda: versions.ready(("content", 0)), 120, "an error")
    versions.close()
