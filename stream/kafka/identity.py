"""Notice topics that are deleted and created again while a client uses them.

librdkafka does not recover from that by itself unless it sees the topic missing in between: the leader epochs of the
new topic begin at 0 again, and metadata with an epoch below the known one counts as outdated (KIP-320). After any
restart of a broker the old topic's are above 0; then a consumer fetches nothing from the new topic and reports nothing,
and a producer keeps sending to the brokers that led the old one. Seen with librdkafka 2.16 on Apache Kafka 4.2 with
both group protocols. A new client recovers.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from tagbus.stream.config import KafkaSettings
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.errors import RAISED

# Between two requests. Each costs a broker one metadata response for these topics.
EVERY_SECONDS = 5.0
# Timeout of a request.
ASK_SECONDS = 10.0
# The id that brokers before 2.8 give every topic.
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"


class _Described(Protocol):
    @property
    def topic_id(self) -> object: ...


class TopicIds:
    """The ids of topics that exist: a topic that is created again has another one (KIP-516). Not thread-safe."""

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        self._kafka = kafka
        self._topics = list(topics)
        self._client: AdminClient | None = None
        # All that were seen: a broker that was away for some time may answer with an earlier one.
        self._ids: dict[str, set[str]] = {}
        self._asked: Mapping[str, Future[_Described]] = {}
        self._asked_at = 0.0

    def recreated(self) -> list[str]:
        """The topics that turn out to be created again since an earlier call. Never waits: it takes in the answer to an
        earlier request, or sends the next one. Failed requests are repeated, and tell nothing."""
        now = time.monotonic()
        if self._asked:
            return self._take() if all(answer.done() for answer in self._asked.values()) else []
        if now - self._asked_at >= EVERY_SECONDS:
            self._asked_at = now
            self._client = self._client or clients.quiet_admin(self._kafka, lambda _: None)
            self._asked = self._client.describe_topics(TopicCollection(self._topics), request_timeout=ASK_SECONDS)
        return []

    def _take(self) -> list[str]:
        answers, self._asked = self._asked, {}
        found: dict[str, str] = {}
        for topic, answer in answers.items():
            try:
                one = str(answer.result().topic_id)
            except RAISED:
                continue
            if one != NO_ID:
                found[topic] = one
        again = [topic for topic, one in found.items() if one not in self._ids.setdefault(topic, {one})]
        for topic in again:
            self._ids[topic].add(found[topic])
        return again
