"""Long processing on Apache Kafka itself: longer than any timeout of the group, and longer than a rebalance waits."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import pytest
from prometheus_client import REGISTRY

from tests.bus.harness import Running, events, exactly_once, running, settings, until_all_out
from tests.bus.taggers import Gated, Trivial
from tests.conftest import Broker
from tests.support import Layout, produce, wait_until

pytestmark = pytest.mark.kafka

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


def rebalances(*kinds: str) -> float:
    return sum(REGISTRY.get_sample_value("tagbus_rebalances_total", {"kind": kind}) or 0 for kind in kinds)


def test_a_batch_may_take_longer_than_the_poll_interval(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]
) -> None:
    # Given a poll interval of 2 s, and batches that take 3 s; a group of each protocol side by side
    tagger, before = Trivial(3), rebalances("assigned", "revoked", "lost")
    with ExitStack() as stack:
        made = []
        for protocol in ("classic", "consumer"):
            names = topics({"content": 1, "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 1})
            timeouts = {"session_seconds": 2, "poll_seconds": 2, "group_protocol": protocol}
            given = settings(kafka.address, names, kafka=timeouts, batch={"contents": 20, "in_flight": 2})
            produce(kafka.address, names["content"], events(80))
            made.append((names, stack.enter_context(running(given, tagger))))
        # When there is more than may be in flight, so that the consumer waits too
        for names, run in made:
            until_all_out(kafka.address, names, 80)
            assert run.worker.alive()
        # Then each worker has kept its partition all the time, and each content was tagged once
        assert rebalances("assigned", "revoked", "lost") == before + 2
        assert sum(len(batch) for batch in tagger.seen) == 160
    for names, _ in made:
        exactly_once(kafka.address, names)


@PROTOCOLS
def test_what_a_rebalance_does_not_wait_for_is_dropped_in_the_revoked_partition_only(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], protocol: str
) -> None:
    # Given a worker with a batch of each of two partitions at a tagger that does not come to an end
    names = topics({"content": 2, "tagged": 1, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": 2})
    for partition in (0, 1):
        produce(kafka.address, names["content"], events(10, f"p{partition}-"), partition)
    timeouts = {"session_seconds": 2, "group_protocol": protocol}
    given = settings(kafka.address, names, kafka=timeouts, batch={"contents": 10, "drain_seconds": 0.3})
    other = given.model_copy(update={"kafka": given.kafka.model_copy(update={"instance": "two"})})
    slow = Gated(lambda _: True)
    with running(given, slow):
        wait_until(lambda: slow.waiting == 2, 120)
        # When one of the partitions goes to another worker, and comes back while the dropped batch is not done
        before = rebalances("revoked")
        second = Running(other, Gated(lambda _: True))
        wait_until(lambda: rebalances("revoked") > before, 120)
        second.worker.stop()
        second.worker.stop()
        second.join()
        wait_until(lambda: slow.waiting == 3, 120)
        slow.open = True
        # Then its contents are tagged once more, those of the other are not, and each comes out once
        until_all_out(kafka.address, names, 20)
        assert slow.most == 3
        assert Counter(name for batch in slow.seen for name in batch).most_common(1)[0][1] == 1
    exactly_once(kafka.address, names)
