"""Broker health: whether brokers answer, and how long the worker waits for dependencies that do not."""

import logging
import time

from confluent_kafka import Consumer

from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.errors import RAISED

log = logging.getLogger(__name__)

# The timeout of one request that checks whether a broker is back.
ASK_SECONDS = 1.0
# A poll thread that has not turned for so long was suspended, or its machine was.
STOOD_SECONDS = 5.0
# How often to log that the group does not admit this worker.
JOIN_SECONDS = 30.0


class BrokerHealth:
    """Times are of time.monotonic(). `down` may be called from any thread, the other methods from the poll thread."""

    def __init__(self, consumer: Consumer, topic: str, deadline: float | None) -> None:
        """`deadline`: how many seconds a dependency may be down before the worker ends; None: no limit."""
        self._consumer = consumer
        self._topic = topic
        self._deadline = deadline
        self._up = time.monotonic()
        self.down_since: float | None = None
        self._said = 0.0

    @property
    def up_since(self) -> float | None:
        """Since when brokers have answered and this process has run; None while no broker answers."""
        return self._up if self.down_since is None else None

    def down(self) -> None:
        """librdkafka reports that no broker answers."""
        self.down_since = self.down_since or time.monotonic()

    def answered(self) -> None:
        """A broker has answered."""
        if self.down_since is not None:
            since, self.down_since, self._up = self.down_since, None, time.monotonic()
            log.info("consume: brokers answer again after %.1fs", self._up - since)

    def resumed(self, now: float) -> None:
        """This process stood still until now and knows nothing about the time before."""
        self._up = now

    def ask(self) -> None:
        """While brokers are down, check whether one is back: librdkafka never reports that."""
        if self.down_since is None:
            return
        try:
            self._consumer.list_topics(self._topic, ASK_SECONDS)
        except RAISED:
            return
        self.answered()

    def report_waiting(self, since: float | None) -> None:
        """Log that the group has not admitted this worker since then; None: it has. librdkafka does not report it."""
        now = time.monotonic()
        if since is None or self.down_since is not None or now - max(since, self._said) < JOIN_SECONDS:
            return
        self._said = now
        log.warning(
            "consume: the group has not admitted this worker for %.0fs: another member blocks its rebalance, or no "
            "broker coordinates it (`tagbus check` says why)",
            now - since,
        )

    def check_deadline(self, stalled: float | None) -> None:
        """Raise DependencyDown when brokers, or a dependency that a batch has waited for since `stalled`, are down for
        longer than the deadline."""
        now = time.monotonic()
        since = min(filter(None, (stalled, self.down_since)), default=now)
        if self._deadline is not None and now - since > self._deadline:
            which = "no broker has" if self.down_since is not None else "a dependency of the tagger has not"
            raise DependencyDown(
                f"{which} answered for {now - since:.0f} s, longer than retry.deadline_seconds = {self._deadline:g}"
            )
