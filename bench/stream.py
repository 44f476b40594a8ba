"""Throughput of encoder, tagger and whole stream, side by side; latency; the cost of telemetry.

    python bench/stream.py [--out FILE] [--rounds 3] [--count 8000] [--parts rates latency telemetry]
        [--data ../shared/data/yso-titles] [--cache .cache/bench]

`rates`: the stream runs from Apache Kafka to Apache Kafka, exactly once, and is timed from the first produce to the
last result under read_committed. All three get the same titles in the same batches, with the same concurrency and
threads, over the memory of the examples. Each round measures all three; a first round warms up and is dropped. The
report is the round with the median ratio: on shared machines ratios are more reliable than rates.

`latency`: a separate worker for each path: `plain` (recall alone), `ranked` (the packaged heads and ranker), `judged`
(the same, with a System One server on this machine, sparrow-decider, asked about every content) and `degraded` (the
same after that server has ended: every content goes out without it). First full
load, with a thousand contents waiting at any time, then 25, 50 and 75% of that rate for some seconds each, evenly. p50
and p99 are from a record's timestamp until its result is read under read_committed, a little after the commit;
`mean_to_commit_seconds` is the worker's own tagbus_end_to_end_seconds. The objective of the rules is 99% within 10 s.

`telemetry`: three workers in turn at full load: one with text logs, one with JSON logs that sends spans of a hundredth
of the contents and its metrics by OTLP to a collector on this machine, and one that sends spans of all. The ratio is
the median over the rounds.

Parts that are not measured stay unchanged in the report. The titles are test.tsv of the data folder; without it, the
exemplars of the examples, which are longer.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from otlp_sink import exports, sink
from paced import Load, keep, titles, worker_settings
from prometheus_client.parser import text_string_to_metric_families

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.components import packaged
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.evaluation import ran
from tagbus.stream.app.places import files
from tagbus.stream.cli.create import create_all
from tagbus.stream.cli.demo import judge
from tagbus.stream.cli.records.publish import send
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content
from tagbus.stream.encoder.release import content_text
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.worker import LocalWorker

PATHS = ("plain", "ranked", "judged", "degraded")
SHARES = (0.25, 0.5, 0.75)
FULL_SECONDS, LOAD_SECONDS = 6.0, 12.0
VARIANTS = ("off", "on", "all_traced")
# Parts of the report, and the workers of each.
WORKERS = {"rates": ("rates",), "latency": PATHS, "telemetry": VARIANTS}
# Seconds between exports of the metrics: often enough to fall into the measurement.
EXPORT_SECONDS = 5
DEADLINE_SECONDS = 600.0
WARM_RECORDS = 50_000


@dataclass(frozen=True, slots=True)
class Round:
    """One round: contents per second of each, and CPU seconds of the broker during the stream."""

    encoder_per_second: float
    tagger_per_second: float
    stream_per_second: float
    broker_cpu_seconds: float


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


async def rates(
    settings: Settings, stack: assemble.TaggingStack, contents: Sequence[Content], rounds: int, broker: ApacheKafka
) -> list[Round]:
    """All rounds. The worker is idle while encoder and tagger are measured."""
    size, limit = settings.batch.contents, settings.batch.in_flight
    batches = [contents[start : start + size] for start in range(0, len(contents), size)]
    found = []
    tagger = stack.tagger()

    async def encode(batch: Sequence[Content]) -> None:
        await stack.encoder.encode([content_text(content.title, content.text) for content in batch])

    with LocalWorker(settings, worker_of(settings)) as worker:
        worker.wait_until_ready()
        for number in range(rounds + 1):
            fresh = [content.model_copy(update={"id": f"{content.id}-{number}"}) for content in contents]
            encoder_rate = await at_once(batches, limit, encode)
            tagger_rate = await at_once(batches, limit, tagger.tag)
            stream_rate, cpu = await asyncio.to_thread(stream, settings, fresh, broker)
            found.append(Round(encoder_rate, tagger_rate, stream_rate, cpu))
            console.say(f"round {number}: {found[-1]}")
        worker.stop()
    return found[1:]


def worker_of(settings: Settings, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a worker whose memory is its snapshot."""
    own = {
        "TAGBUS_ENCODER__THREADS": str(settings.encoder.threads),
        "TAGBUS_RELEASES__FOLDER": str(settings.releases.folder),
        "TAGBUS_KAFKA__TRANSACTIONAL_ID": settings.kafka.transactional_id,
    }
    return {**own, **(more or {})}


def latency(settings: Settings, path: str, contents: Sequence[Content]) -> dict[str, object]:
    """Measure the full load of a path, and the latency below it."""
    with ExitStack() as stack:
        more = {} if path == "plain" else packaged()
        if path in {"judged", "degraded"}:
            server = stack.enter_context(ExitStack())
            asked = judge.started("decider", server).variables(more, stack)
            more = {**more, **asked, "TAGBUS_CASCADE__CONTROL": "1"}
            if path == "degraded":
                server.close()
        worker = stack.enter_context(LocalWorker(settings, worker_of(settings, more)))
        worker.wait_until_ready()
        load = stack.enter_context(Load(settings, contents))
        full = load.full(FULL_SECONDS)
        rows = []
        for share in SHARES:
            before = committed(worker, load.sent)
            took = load.at(share * full, LOAD_SECONDS)
            seconds, count = (now - then for now, then in zip(committed(worker, load.sent), before, strict=True))
            p50, p99 = (round(float(cut), 4) for cut in np.percentile(took, (50, 99)))
            row = {"share": share, "contents_per_second": round(share * full, 1), "contents": len(took)}
            means = {
                "mean_seconds": round(statistics.mean(took), 4),
                "mean_to_commit_seconds": round(seconds / count, 4),
            }
            rows.append({**row, "p50_seconds": p50, "p99_seconds": p99, **means})
            console.say(f"{path}: {rows[-1]}")
        worker.stop()
    return {"full_contents_per_second": round(full, 1), "loads": rows}


def committed(worker: LocalWorker, sent: int) -> tuple[float, float]:
    """Return the seconds from record to commit and the number of contents, by the worker's own metric, once it has
    observed all that were sent. Raises TimeoutError if it does not.

    A result can be read a moment before the worker observes it: a batch of the full load, 33 s old, that was counted
    with the load after it made a mean of 21 s out of 0.1 s.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=30) as answer:
            families = {one.name: one.samples for one in text_string_to_metric_families(answer.read().decode())}
        samples = families["tagbus_end_to_end_seconds"]
        seconds, count = (sum(one.value for one in samples if one.name.endswith(end)) for end in ("_sum", "_count"))
        if count >= sent:
            return seconds, count
        time.sleep(0.05)
    raise TimeoutError(f"the worker observed {count:.0f} of {sent} contents within {DEADLINE_SECONDS:.0f} s")


def telemetry(places: Mapping[str, Settings], contents: Sequence[Content], rounds: int) -> dict[str, object]:
    """Measure the contents a second of each variant in turn, and the ratios."""
    with ExitStack() as stack:
        url = stack.enter_context(sink())
        sent = {
            "TAGBUS_OTEL__ENDPOINT": url,
            "TAGBUS_OTEL__METRICS_SECONDS": str(EXPORT_SECONDS),
            "TAGBUS_LOG__FORMAT": "json",
        }
        variants = {"off": {}, "on": sent, "all_traced": {**sent, "TAGBUS_OTEL__SAMPLE": "1"}}
        loads = {}
        for name, more in variants.items():
            worker = stack.enter_context(LocalWorker(places[name], worker_of(places[name], more)))
            worker.wait_until_ready()
            loads[name] = stack.enter_context(Load(places[name], contents))
        rows: list[dict[str, float]] = []
        for number in range(rounds + 1):
            order = list(loads) if number % 2 else list(reversed(loads))
            rows.append({name: loads[name].full(FULL_SECONDS) for name in order})
            console.say(f"telemetry, round {number}: {rows[-1]}")
        taken = exports(url)
    if not taken:
        raise SystemExit("nothing was exported")
    ratios = {
        f"{name}_over_off": round(statistics.median(row[name] / row["off"] for row in rows[1:]), 3)
        for name in ("on", "all_traced")
    }
    return {**ratios, "exports": taken, "rounds": [{name: round(row[name], 1) for name in loads} for row in rows[1:]]}


async def measure(
    settings: Settings, contents: Sequence[Content], asked: argparse.Namespace, broker: ApacheKafka
) -> dict[str, object]:
    """Measure the requested parts."""
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with assemble.in_process(settings, asked.cache) as stack:
            tags = files.all_of(example("tags.jsonl"), files.tag_of)
            exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
            with console.bar("memory", len(tags) + len(exemplars)) as bar:
                await filling.fill(stack.projection(), {"tags": tags, "exemplars": exemplars}, bar.advance)
            await filling.save_memories(asked.cache, stack.memories)
            wanted = [name for part, names in WORKERS.items() if part in asked.parts for name in names]
            places = {name: worker_settings(settings, name, Path(folder)) for name in wanted}
            for place in places.values():
                await asyncio.to_thread(create_all, place)
                await keep(stack, place)
            await asyncio.to_thread(warm_up, settings)
            if "rates" in asked.parts:
                found = await rates(places["rates"], stack, contents, asked.rounds, broker)
                report |= {**summary(found), "ran": ran(stack)}
        if "latency" in asked.parts:
            report["latency"] = {path: latency(places[path], path, contents) for path in PATHS}
        if "telemetry" in asked.parts:
            report["telemetry"] = telemetry({name: places[name] for name in VARIANTS}, contents, asked.rounds)
    return report


def summary(found: Sequence[Round]) -> dict[str, object]:
    """The round with the median ratio, and all of them."""
    middle = sorted(found, key=lambda one: one.stream_per_second / one.encoder_per_second)[len(found) // 2]
    return {
        **{name: round(value, 2) for name, value in asdict(middle).items()},
        "tagger_over_encoder": round(middle.tagger_per_second / middle.encoder_per_second, 3),
        "stream_over_encoder": round(middle.stream_per_second / middle.encoder_per_second, 3),
        "stream_over_tagger": round(middle.stream_per_second / middle.tagger_per_second, 3),
        "rounds": [{name: round(value, 2) for name, value in asdict(one).items()} for one in found],
        "median_encoder_per_second": round(statistics.median(one.encoder_per_second for one in found), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/stream.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--parts", nargs="+", choices=WORKERS, default=list(WORKERS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/yso-titles"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"), help="keeps the memory for the next run")
    asked = parser.parse_args()
    base = Settings.model_construct()
    with ApacheKafka() as broker:
        settings = Settings.model_construct(
            kafka=base.kafka.model_copy(update={"brokers": broker.address}),
            topics=base.topics.model_copy(update={"partitions": 4}),
        )
        create_all(settings)
        source, contents = titles(asked.data, asked.count)
        found = asyncio.run(measure(settings, contents, asked, broker))
    report = {
        **(json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}),
        **found,
        "titles": source,
        "contents": len(contents),
        "mean_characters": round(statistics.mean(len(content.text) for content in contents), 1),
        "batch": settings.batch.contents,
        "batches_at_once": settings.batch.in_flight,
        "delivery": settings.kafka.delivery,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
