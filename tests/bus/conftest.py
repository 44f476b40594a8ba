"""The topics of a worker on the mock cluster."""

import pytest

from tagbus.stream.local.mock import MockCluster
from tests.bus.harness import TOPICS


@pytest.fixture
def mock_topics(mock_kafka: MockCluster) -> dict[str, str]:
    """The four topics, two partitions each."""
    for name in TOPICS:
        mock_kafka.topic(name, 2)
    return {name: name for name in TOPICS}
