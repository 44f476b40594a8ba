"""Whether brokers answer, and how long the worker waits for what does not."""

import logging
import time

from confluent_kafka import Consumer

from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.errors import RAISED

log = logging.getLogger(__name__)

# How long one request may take that asks whether a broker is back.
ASK_SECONDS = 1.0


# How often it is said that the group does not take this worker in.
JOIN_SECONDS = 30.0


class BrokerHealth:
    """Times are of time.monotonic(). `down` may be called from any thread, the other methods from the poll thread."""

    def __init__(self, consumer: Consumer, topic: str, deadline: float | None) -> None:
        """`deadline`: how many seconds a dependency may be down before the worker ends; None: any time."""
        self._consumer = consumer
        self._topic = topic
        self._deadline = deadline
        self._up = time.monotonic()
        self.down_since: float | None = None
        self._said = 0.0

    @property
    def up_since(self) -> float | None:
        """Since when brokers answer and this process runs; None while no broker answers."""
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
        """While brokers are down, ask whether one is back: librdkafka never reports that."""
        if self.down_since is None:
            return
        try:
            self._consumer.list_topics(self._topic, ASK_SECONDS)
        except RAISED:
            return
        self.answered()

    def report_waiting(self, since: float | None) -> None:
        """Say that the group has not taken this worker in since then; None: it has. librdkafka says nothing of it."""
        now = time.monotonic()
        if since is None or self.down_since is not None or now - max(since, self._said) < JOIN_SECONDS:
            return
        self._said = now
        log.warning(
            "consume: the group has not taken this worker in for %.0fs: another member holds up its rebalance, or no "
            "broker coordinates it (`tagbus check` says why)",
            now - since,
        )

    def check_deadline(self, stalled: float | None) -> None:
        """Raise DependencyDown when brokers, or a dependency for which a batch has waited since `stalled`, are down for
        longer than the deadline."""
        now = time.monotonic()
        since = min(filter(None, (stalled, self.down_since)), default=now)
        if self._deadline is not None and now - since > self._deadline:
            which = "no broker has" if self.down_since is not None else "a dependency of the tagger has not"
            raise DependencyDown(
                f"{which} answered for {now - since:.0f} s, longer than retry.deadline_seconds = {self._deadline:g}"
            )
