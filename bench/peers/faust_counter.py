"""A Faust app that counts records by key with `exactly_once`: killed by bench/views.py, its counts show whether the
guarantee is kept.

    python faust_counter.py BROKERS GROUP SOURCE OUTPUT STORE FOLDER
"""

import sys

import faust

BROKERS, GROUP, SOURCE, OUTPUT, STORE, FOLDER = sys.argv[1:]

app = faust.App(
    GROUP,
    broker=f"kafka://{BROKERS}",
    processing_guarantee="exactly_once",
    consumer_auto_offset_reset="earliest",
    consumer_group_instance_id="one",
    broker_session_timeout=10,
    broker_commit_interval=0.5,
    store=STORE,
    datadir=FOLDER,
    topic_disable_leader=True,
    topic_allow_declare=False,
    web_enabled=False,
)
source = app.topic(SOURCE, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
output = app.topic(OUTPUT, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
changelog = app.topic(f"{GROUP}-counts-changelog", key_type=bytes, key_serializer="raw", value_serializer="json")
counts = app.Table("counts", default=int, key_type=bytes, changelog_topic=changelog)


@app.agent(source)
async def count(stream: faust.StreamT[bytes]) -> None:
    async for event in stream.events():
        counts[event.key] += 1
        await output.send(key=event.key, value=f"{event.message.partition}:{event.message.offset}".encode())


if __name__ == "__main__":
    app.finalize()
    faust.Worker(app, loglevel="ERROR").execute_from_commandline()
