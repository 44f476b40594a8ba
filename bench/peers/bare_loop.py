"""The lower bound: consume and produce with confluent-kafka in one thread, with nothing but the work in between.

    python bench/peers/bare_loop.py SPEC [bytes]

With `bytes` events are not parsed: each result is a constant.
"""

import json
import signal
import sys
import time
from collections.abc import Callable

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from pydantic_core import from_json, to_json
from spec import BATCH, COMMIT_EVERY, COMMIT_SECONDS, Spec, result, source_headers

CONSTANT = json.dumps(result({"id": "bench-000000"}), separators=(",", ":")).encode()


def parsed(value: bytes) -> bytes:
    """Parse the event and serialize its result, as any tagger must."""
    return to_json(result(from_json(value)))


class Loop:
    """Consumes batches of 500 and commits every 2,000 events or 0.1 s, whichever comes first."""

    def __init__(self, spec: Spec, answer: Callable[[bytes], bytes]) -> None:
        self._spec = spec
        self._answer = answer
        self._exactly_once = spec.guarantee == "exactly_once"
        self._consumer = Consumer(spec.consumer())
        transactional = {"transactional.id": f"{spec.group}-{spec.instance}"} if self._exactly_once else {}
        self._producer = Producer({**spec.producer(), **transactional})
        self._next: dict[tuple[str, int], int] = {}
        self._events = 0
        self._since = 0.0
        self.running = True

    def run(self) -> None:
        """Run until `running` is False."""
        if self._exactly_once:
            self._producer.init_transactions()
        self._consumer.subscribe([self._spec.content])
        while self.running:
            self._take(self._consumer.consume(BATCH, COMMIT_SECONDS))
            if self._events >= COMMIT_EVERY or (self._events and time.monotonic() - self._since >= COMMIT_SECONDS):
                self._commit()
        self._consumer.close()

    def _take(self, messages: list[Message]) -> None:
        messages = [message for message in messages if message.error() is None]
        if not messages:
            return
        if self._spec.work_ms:
            time.sleep(self._spec.work_seconds(len(messages)))
        if not self._events:
            self._since = time.monotonic()
            if self._exactly_once:
                self._producer.begin_transaction()
        for message in messages:
            topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
            self._producer.produce(
                self._spec.tagged,
                self._answer(message.value() or b""),
                message.key(),
                headers=source_headers(topic, partition, offset),
            )
            self._next[topic, partition] = offset + 1
        self._events += len(messages)
        self._producer.poll(0)

    def _commit(self) -> None:
        offsets = [TopicPartition(*place, offset) for place, offset in self._next.items()]
        if self._exactly_once:
            self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata())
            self._producer.commit_transaction()
        else:
            self._producer.flush()
            self._consumer.commit(offsets=offsets, asynchronous=False)
        self._next.clear()
        self._events = 0


def main() -> None:
    loop = Loop(Spec.from_argv(), (lambda _: CONSTANT) if "bytes" in sys.argv[2:] else parsed)

    def stop(*_: object) -> None:
        loop.running = False

    signal.signal(signal.SIGTERM, stop)
    loop.run()


if __name__ == "__main__":
    main()
