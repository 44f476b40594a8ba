"""A full disk where nothing can be mounted: the broker exits, and has its records again when there is space."""

from collections.abc import Callable

import pytest

from tagbus.stream.local.apache import ApacheKafka
from tests.kafka import disk
from tests.support import consume_all, create_topics, produce, wait_until

pytestmark = pytest.mark.kafka


def test_a_broker_that_may_write_no_more_ends_and_comes_back(
    apache: Callable[..., ApacheKafka], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_mount", lambda _: False)
    with disk.Disk() as small, apache() as broker:
        create_topics(broker.address, {"content": 1})
        produce(broker.address, "content", [(b"a", b"value", [])])
        # When its disk is full, then it ends: it writes twice a second, whatever is asked of it
        small.fill(broker)
        wait_until(lambda: not broker.known(), 120, "the end of the broker")
        # And with space it has what it had confirmed
        small.free()
        broker.restart()
        assert [message.key() for message in consume_all(broker.address, "content")] == [b"a"]
