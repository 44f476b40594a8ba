"""Quix Streams: one event at a time through a StreamingDataFrame, with its own JSON serializers (orjson).

It has no batch callback outside windows, so the work of 500 events is spread over them: it sleeps once a millisecond of
work has accumulated, and subtracts the overrun of each sleep from the next.
"""

import tempfile
import time

from quixstreams import Application, message_context
from spec import COMMIT_EVERY, COMMIT_SECONDS, PRODUCER, Spec, result, source_headers


class Work:
    """The tagger."""

    def __init__(self, spec: Spec) -> None:
        self._each = spec.work_seconds(1)
        self._due = 0.0

    def __call__(self, content: dict[str, object]) -> dict[str, object]:
        self._due += self._each
        if self._due >= 0.001:
            start = time.monotonic()
            time.sleep(self._due)
            self._due -= time.monotonic() - start
        return result(content)


def headers(*_: object) -> list[tuple[str, bytes]]:
    """Headers of the current event's result."""
    source = message_context()
    return source_headers(source.topic, source.partition, source.offset)


def main() -> None:
    spec = Spec.from_argv()
    app = Application(
        broker_address=spec.brokers,
        consumer_group=spec.group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once" if spec.guarantee == "exactly_once" else "at-least-once",
        commit_every=COMMIT_EVERY,
        commit_interval=COMMIT_SECONDS,
        # Bounds how late a commit may be: the loop checks after each poll.
        consumer_poll_timeout=COMMIT_SECONDS,
        consumer_extra_config={"isolation.level": "read_committed"},
        producer_extra_config=PRODUCER,
        auto_create_topics=False,
        state_dir=tempfile.mkdtemp(prefix="bench-quix-"),
        loglevel="WARNING",
    )
    content = app.topic(spec.content, key_deserializer="bytes", value_deserializer="json")
    tagged = app.topic(spec.tagged, key_serializer="bytes", value_serializer="json")
    app.dataframe(content).apply(Work(spec)).set_headers(headers).to_topic(tagged)
    app.run()


if __name__ == "__main__":
    main()
