"""FastStream on confluent-kafka: a batch subscriber of 500 that confirms each result, then commits. At least once.

FastStream has no transactions. Its publish_batch sets the same headers on all messages of a batch, so results are
published one by one, concurrently.
"""

import asyncio

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker
from faststream.confluent.annotations import KafkaMessage
from spec import BATCH, COMMIT_SECONDS, PRODUCER, Spec, result, source_headers

SPEC = Spec.from_argv()

broker = KafkaBroker(SPEC.brokers, config=PRODUCER, allow_auto_create_topics=False, logger=None)
app = FastStream(broker, logger=None)


@broker.subscriber(
    SPEC.content,
    group_id=SPEC.group,
    batch=True,
    max_records=BATCH,
    polling_interval=COMMIT_SECONDS,
    auto_offset_reset="earliest",
    isolation_level="read_committed",
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def tag(contents: list[dict], message: KafkaMessage) -> None:
    if SPEC.work_ms:
        await asyncio.sleep(SPEC.work_seconds(len(contents)))
    await asyncio.gather(*(publish(content, raw) for content, raw in zip(contents, message.raw_message, strict=True)))


async def publish(content: dict, raw) -> None:
    """Publish one result."""
    headers = source_headers(raw.topic(), raw.partition(), raw.offset())
    await broker.publish(
        result(content), SPEC.tagged, key=raw.key(), headers={name: value.decode() for name, value in headers}
    )


if __name__ == "__main__":
    asyncio.run(app.run())
