"""Throughput of the encoder alone, the tagger and the whole stream, side by side in one run.

    python bench/stream.py [--out FILE] [--rounds 3] [--count 8000] [--data ../shared/data/yso-titles]

The stream runs from Apache Kafka to Apache Kafka, exactly once, and is timed from the first produce to the last result
under read_committed. All three get the same titles in the same batches, with the same concurrency and threads, over the
memory of the examples. Each round measures all three; a first round warms up the broker's JVM and is dropped. The
report is the round with the median ratio: on shared machines ratios are more reliable than rates.

The titles are test.tsv of the data folder; without it, the exemplars of the examples, which are longer.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.evaluation import ran
from tagbus.stream.app.places import files
from tagbus.stream.cli.create import create_all
from tagbus.stream.cli.records.publish import send
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content
from tagbus.stream.encoder.release import content_text
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.worker import LocalWorker

DEADLINE_SECONDS = 600.0
WARM_RECORDS = 50_000


@dataclass(frozen=True, slots=True)
class Round:
    """One round: contents per second of each, and CPU seconds of the broker during the stream."""

    encoder_per_second: float
    tagger_per_second: float
    stream_per_second: float
    broker_cpu_seconds: float


def titles(data: Path, count: int) -> tuple[str, list[Content]]:
    """The source of the titles, and the titles as contents with ids that memory does not hold."""
    if (data / "test.tsv").exists():
        rows = list(DataFolder(data).exemplars("test"))
        source = "yso-titles/test.tsv"
    else:
        rows = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
        source = "examples/exemplars.jsonl"
    return source, [Content(id=f"bench-{n}", title=row.title, text=row.text) for n, row in enumerate(rows[:count])]


async def at_once(
    batches: Sequence[Sequence[Content]], limit: int, work: Callable[[Sequence[Content]], Awaitable[object]]
) -> float:
    """Contents per second of `work` over all batches, `limit` concurrently."""
    gate = asyncio.Semaphore(limit)

    async def one(batch: Sequence[Content]) -> None:
        async with gate:
            await work(batch)

    started = time.monotonic()
    await asyncio.gather(*map(one, batches))
    return sum(map(len, batches)) / (time.monotonic() - started)


def stream(settings: Settings, contents: Sequence[Content], broker: ApacheKafka) -> tuple[float, float]:
    """Contents per second through a running worker, and the broker's CPU seconds."""
    with TopicReader(settings.kafka) as reader:
        reader.discover([settings.topics.tagged], "end")
        # The first fetch opens the connections.
        reader.read(1, 1.0)
        cpu, started, seen = broker.cpu_seconds(), time.monotonic(), 0
        with console.bar("publishing", len(contents)) as bar:
            send(TopicWriter(settings.kafka, settings.topics.content), map(encode_record, contents), bar)
        while seen < len(contents):
            seen += len(reader.read(1000, 0.2).messages)
            if time.monotonic() - started > DEADLINE_SECONDS:
                raise TimeoutError(f"{seen} of {len(contents)} results after {DEADLINE_SECONDS:.0f} s")
        return len(contents) / (time.monotonic() - started), broker.cpu_seconds() - cpu


def warm_up(settings: Settings) -> None:
    """Warm up the broker's JVM: a cold one takes twice the CPU for a few minutes."""
    topic = settings.topics.dead_letters
    with TopicReader(settings.kafka) as reader:
        reader.discover([topic], "end")
        seen = 0
        with console.bar("warming up the broker", WARM_RECORDS) as bar:
            send(TopicWriter(settings.kafka, topic), (Record(b"%d" % n, bytes(1000)) for n in range(WARM_RECORDS)), bar)
        while seen < WARM_RECORDS:
            seen += len(reader.read(1000, 1.0).messages)


async def measure(
    settings: Settings, contents: Sequence[Content], rounds: int, broker: ApacheKafka
) -> tuple[dict[str, object], list[Round]]:
    """What ran, and all rounds. The worker is idle while encoder and tagger are measured."""
    size, limit = settings.batch.contents, settings.batch.in_flight
    batches = [contents[start : start + size] for start in range(0, len(contents), size)]
    found = []
    async with assemble.in_process(settings) as stack:
        tags = files.all_of(example("tags.jsonl"), files.tag_of)
        exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
        with console.bar("memory", len(tags) + len(exemplars)) as bar:
            await filling.fill(stack.projection(), {"tags": tags, "exemplars": exemplars}, bar.advance)
        for topic, records in (
            (settings.topics.tags, map(encode_record, tags)),
            (settings.topics.exemplars, map(encode_record, exemplars)),
        ):
            with console.bar(f"publishing {topic}", 1) as bar:
                send(TopicWriter(settings.kafka, topic), records, bar)
        tagger = stack.tagger()

        async def encode(batch: Sequence[Content]) -> None:
            await stack.encoder.encode([content_text(content.title, content.text) for content in batch])

        await asyncio.to_thread(warm_up, settings)
        with LocalWorker(settings, {"TAGBUS_ENCODER__THREADS": str(settings.encoder.threads)}) as worker:
            worker.wait_until_ready()
            for number in range(rounds + 1):
                fresh = [content.model_copy(update={"id": f"{content.id}-{number}"}) for content in contents]
                encoder_rate = await at_once(batches, limit, encode)
                tagger_rate = await at_once(batches, limit, tagger.tag)
                stream_rate, cpu = await asyncio.to_thread(stream, settings, fresh, broker)
                found.append(Round(encoder_rate, tagger_rate, stream_rate, cpu))
                console.say(f"round {number}: {found[-1]}")
            worker.stop()
    return ran(stack), found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/results/stream.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/yso-titles"))
    arguments = parser.parse_args()
    base = Settings.model_construct()
    with ApacheKafka() as broker:
        settings = Settings.model_construct(
            kafka=base.kafka.model_copy(update={"brokers": broker.address}),
            topics=base.topics.model_copy(update={"partitions": 4}),
        )
        create_all(settings)
        source, contents = titles(arguments.data, arguments.count)
        what, found = asyncio.run(measure(settings, contents, arguments.rounds, broker))
    middle = sorted(found, key=lambda one: one.stream_per_second / one.encoder_per_second)[len(found) // 2]
    report = {
        **{name: round(value, 2) for name, value in asdict(middle).items()},
        "tagger_over_encoder": round(middle.tagger_per_second / middle.encoder_per_second, 3),
        "stream_over_encoder": round(middle.stream_per_second / middle.encoder_per_second, 3),
        "stream_over_tagger": round(middle.stream_per_second / middle.tagger_per_second, 3),
        "ran": what,
        "titles": source,
        "contents": len(contents),
        "mean_characters": round(statistics.mean(len(content.text) for content in contents), 1),
        "batch": settings.batch.contents,
        "batches_at_once": settings.batch.in_flight,
        "delivery": settings.kafka.delivery,
        "rounds": [{name: round(value, 2) for name, value in asdict(one).items()} for one in found],
        "median_encoder_per_second": round(statistics.median(one.encoder_per_second for one in found), 2),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
