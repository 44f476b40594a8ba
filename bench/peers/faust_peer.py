"""Faust (faust-streaming): an agent that takes batches of 500 events, with its own JSON codec (orjson)."""

import asyncio
import tempfile

import faust
from spec import BATCH, COMMIT_EVERY, COMMIT_SECONDS, COMPRESSION, LINGER_MS, Spec, result, source_headers

SPEC = Spec.from_argv()

app = faust.App(
    SPEC.group,
    broker=f"kafka://{SPEC.brokers}",
    processing_guarantee=SPEC.guarantee,
    broker_commit_every=COMMIT_EVERY,
    broker_commit_interval=COMMIT_SECONDS,
    consumer_auto_offset_reset="earliest",
    producer_acks=-1,
    producer_compression_type=COMPRESSION,
    producer_linger=LINGER_MS / 1000,
    # The same as librdkafka's batch.size; the default of 16 kB is 16 events.
    producer_max_batch_size=1_000_000,
    store="memory://",
    topic_disable_leader=True,
    topic_allow_declare=False,
    web_enabled=False,
    datadir=tempfile.mkdtemp(prefix="bench-faust-"),
)
content = app.topic(SPEC.content, key_type=bytes, key_serializer="raw", value_serializer="json")
tagged = app.topic(SPEC.tagged, key_type=bytes, key_serializer="raw", value_serializer="json")


@app.agent(content)
async def tag(stream: faust.StreamT) -> None:
    async for events in stream.take_events(BATCH, within=COMMIT_SECONDS):
        if SPEC.work_ms:
            await asyncio.sleep(SPEC.work_seconds(len(events)))
        for event in events:
            source = event.message
            headers = source_headers(source.topic, source.partition, source.offset)
            await tagged.send(key=event.key, value=result(event.value), headers=headers)


if __name__ == "__main__":
    app.finalize()
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()
