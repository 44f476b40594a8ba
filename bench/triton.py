"""The encoder through Triton compared with the in-process encoder, in one run on one machine.

    python bench/triton.py [--rounds 5] [--seconds 8] [--out bench/results/triton.json]

Measures texts per second and CPU seconds per 1,000 texts (client and server together) for texts of exactly 16 and 128
tokens and for titles; executions per request with and without padding to a few lengths; the latency of a request of
1,024 tokens by the number in flight, from which encoder.in_flight is set; and goodput at twice the capacity. The two
encoders take turns, and each ratio is the median over the rounds. Takes about 7 minutes on two cores. The server is
TritonServer: Triton 2.51 with the stand-in for its onnxruntime backend.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient

from tagbus.stream.app.data.examples import example
from tagbus.stream.config import EncoderSettings, RetrySettings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.endpoint import QUEUED
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.encoder.tokens import TextReader
from tagbus.stream.encoder.triton import TritonEncoder
from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.triton import TritonServer
from tagbus.stream.retry import backoff

BATCHES = (1, 8, 32, 64)
LENGTHS = (16, 128)
# Concurrent calls: the batches that a worker has in flight (batch.in_flight).
CALLS = 4
# Tokens per measurement: about 1.5 s on two cores. A round has 20 measurements.
TOKENS = 20_000
# Four times as many at the batch size that is compared: an instance is idle for about 0.2 s at the end of a
# measurement, a tenth of it otherwise.
COMPARED, LONGER = 32, 4
# Concurrent requests that keep the instances busy and the queue short.
BUSY = 4
# A worker's backoff after a refused request (retry.first_seconds, retry.cap_seconds).
PATIENCE = RetrySettings()
OUTCOMES = ("answered", "busy", "down", "failed")
FOLDER = default_folder()
READER = TextReader(FOLDER, load_release(FOLDER))


def texts_of(tokens: int) -> list[str]:
    """Distinct texts of exactly `tokens` tokens, made of titles and filled up with short words."""
    found = []
    words = " ".join(titles()).split()
    for number in count():
        start = number * 7 % (len(words) - tokens)
        text = ""
        for word in words[start : start + tokens]:
            if len(READER.tokens([f"{text} {word}"])[0]) > tokens:
                break
            text = f"{text} {word}"
        missing = tokens - len(READER.tokens([text])[0])
        found.append(text + " a" * missing)
        if len(found) * tokens >= 16_384:
            return found
    raise AssertionError


def titles() -> list[str]:
    return [json.loads(line)["title"] for line in example("exemplars.jsonl").read_text(encoding="utf-8").splitlines()]


def settings(address: str, **changes: object) -> EncoderSettings:
    """Settings without the cache, which would answer repeated texts."""
    return EncoderSettings(kind="triton", address=address, cache=0, **changes)  # type: ignore[arg-type]


async def at_once(limit: int, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Run all calls, at most `limit` concurrently."""
    left = iter(calls)

    async def lane() -> None:
        for call in left:
            await call()

    await asyncio.gather(*(lane() for _ in range(limit)))


@dataclass(frozen=True)
class Cell:
    """What a row of the report measures: texts, their mean length in tokens, and texts per call."""

    kind: str
    batch: int
    tokens: int
    texts: list[str]


@dataclass(frozen=True)
class Speed:
    """Texts per second, and CPU seconds of this process and the server per 1,000 texts."""

    rate: float
    cpu: float


def cells() -> list[Cell]:
    real = titles()[:2048]
    mean = round(statistics.mean(len(ids) for ids in READER.tokens(real)))
    kinds = [("", length, texts_of(length), BATCHES) for length in LENGTHS]
    found = []
    for kind, tokens, pool, batches in (*kinds, (", titles", mean, real, (32, 128))):
        for batch in batches:
            # At least one batch per concurrent call.
            wanted = max(batch * CALLS, TOKENS // tokens * (LONGER if batch == COMPARED else 1))
            found.append(Cell(kind, batch, tokens, [pool[index % len(pool)] for index in range(wanted)]))
    return found


async def speed(encoder: Encoder, server: TritonServer, cell: Cell) -> Speed:
    texts, batch = cell.texts, cell.batch
    calls = [texts[start : start + batch] for start in range(0, len(texts) - batch + 1, batch)]
    cpu, started = time.process_time() + server.cpu_seconds(), time.monotonic()
    await at_once(CALLS, [lambda call=call: encoder.encode(call) for call in calls])  # type: ignore[misc]
    seconds, used = time.monotonic() - started, time.process_time() + server.cpu_seconds() - cpu
    done = len(calls) * batch
    return Speed(done / seconds, 1000 * used / done)


Pairs = list[tuple[Speed, Speed]]


async def rounds_of(triton: Encoder, process: Encoder, server: TritonServer, rounds: int) -> list[tuple[Cell, Pairs]]:
    """Each cell in the process and through Triton; the order alternates from round to round."""
    found: list[tuple[Cell, Pairs]] = [(cell, []) for cell in cells()]
    for encoder in (process, triton):
        await encoder.encode(found[0][0].texts[:128])
    for number in range(rounds):
        for cell, pairs in found:
            order = (process, triton) if number % 2 else (triton, process)
            first, second = [await speed(encoder, server, cell) for encoder in order]
            pairs.append((first, second) if number % 2 else (second, first))
        print(f"round {number + 1} of {rounds}: {ratios(found)}", flush=True)
    return found


def ratios(found: list[tuple[Cell, Pairs]]) -> dict[str, float]:
    """Triton over in-process throughput at batch COMPARED, by length of the texts: median over the rounds."""
    return {
        f"{cell.tokens}{cell.kind}": round(statistics.median(two.rate / one.rate for one, two in pairs), 3)
        for cell, pairs in found
        if cell.batch == COMPARED
    }


def rows(found: list[tuple[Cell, Pairs]]) -> list[dict[str, object]]:
    return [
        {
            "name": f"{name}{cell.kind}",
            "batch": cell.batch,
            "tokens": cell.tokens,
            "texts_per_second": round(statistics.median(pair[place].rate for pair in pairs), 1),
            "cpu_seconds_per_1000": round(statistics.median(pair[place].cpu for pair in pairs), 2),
        }
        for cell, pairs in found
        for place, name in enumerate(("in process", "triton"))
    ]


async def difference(triton: Encoder, process: Encoder) -> float:
    texts = titles()[:1000]
    return float(np.abs(await triton.encode(texts) - await process.encode(texts)).max())


def executions(server: TritonServer) -> int:
    with InferenceServerClient(server.address) as client:
        return int(client.get_inference_statistics("encoder").model_stats[0].execution_count)


async def merged(server: TritonServer) -> dict[str, float]:
    """Executions per request of 200 concurrent single-title requests, padded to a few lengths and unpadded."""
    report = {}
    for name in ("padded", "own_length"):
        encoder = await TritonEncoder.open(FOLDER, settings(server.address, in_flight=64))
        if name == "own_length":
            encoder._lengths = list(range(1, 257))
        before = executions(server)
        await asyncio.gather(*(encoder.encode([title]) for title in titles()[:200]))
        report[name] = round((executions(server) - before) / 200, 3)
        await encoder.close()
    return report


async def latencies(server: TritonServer, pool: list[str], seconds: float) -> list[dict[str, float]]:
    """Latency of requests of 1,024 tokens by the number in flight, with the deadline of the settings."""
    report = []
    for limit in (2, 4, 8, 16, 32, 64):
        encoder = await TritonEncoder.open(FOLDER, settings(server.address, in_flight=limit))
        took: list[float] = []
        refused = 0
        numbers, ends = count(), time.monotonic() + seconds

        async def lane(
            encoder: Encoder = encoder, took: list[float] = took, numbers: "count[int]" = numbers, ends: float = ends
        ) -> None:
            nonlocal refused
            while time.monotonic() < ends:
                started = time.monotonic()
                try:
                    await encoder.encode(eight(pool, next(numbers)))
                    took.append(time.monotonic() - started)
                except DependencyDown:
                    refused += 1

        await asyncio.gather(*(lane() for _ in range(limit)))
        p50, p99 = np.percentile(took or [seconds], (50, 99))
        report.append(
            {
                "in_flight": limit,
                "p50_seconds": round(float(p50), 3),
                "p99_seconds": round(float(p99), 3),
                "texts_per_second": round(8 * len(took) / seconds, 1),
                "refused": refused,
            }
        )
        print(report[-1], flush=True)
        await encoder.close()
    return report


def eight(pool: list[str], number: int) -> list[str]:
    """A request of 1,024 tokens: eight texts of 128."""
    return list(islice(pool, number * 8 % (len(pool) - 8), number * 8 % (len(pool) - 8) + 8))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def requests(*outcomes: str) -> float:
    return sum(counted("tagbus_triton_requests_total", model="encoder", outcome=outcome) for outcome in outcomes)


async def overload(server: TritonServer, pool: list[str], rounds: int, seconds: float) -> dict[str, float]:
    """Goodput with twice as many requests in flight as the server can answer before they expire, relative to the peak.

    The peak is the throughput with busy instances and a short queue. Goodput counts the texts of successful calls.
    """
    goodputs, retries, refused, lanes = [], [], [], 0
    peaks = []
    for _ in range(rounds):
        (alone,) = await opened(server, 1)
        peaks.append(await closed_loop([alone], BUSY, pool, seconds))
        await alone.close()
        # An attempt has half of the deadline, and may spend half of that in Triton's queue.
        lanes = max(2 * BUSY, math.ceil(2 * peaks[-1] / 8 * alone._settings.deadline_seconds / 2 * QUEUED))
        encoders = await opened(server, math.ceil(lanes / alone._settings.in_flight))
        before = requests(*OUTCOMES), counted("tagbus_retries_total", step="triton"), requests("busy")
        goodputs.append(await closed_loop(encoders, lanes, pool, 2 * seconds) / peaks[-1])
        made = requests(*OUTCOMES) - before[0]
        retries.append((counted("tagbus_retries_total", step="triton") - before[1]) / made)
        refused.append((requests("busy") - before[2]) / made)
        for encoder in encoders:
            await encoder.close()
        print(
            f"peak {peaks[-1]:.1f}, goodput {goodputs[-1]:.2f} of it with {lanes} in flight, {retries[-1]:.3f} retries"
        )
    return {
        "peak_texts_per_second": round(statistics.median(peaks), 1),
        "goodput_over_peak": round(statistics.median(goodputs), 3),
        "requests_in_flight": lanes,
        "refused_over_requests": round(statistics.median(refused), 3),
        "retries_over_requests": round(statistics.median(retries), 3),
    }


async def opened(server: TritonServer, workers: int) -> list[TritonEncoder]:
    return [await TritonEncoder.open(FOLDER, settings(server.address)) for _ in range(workers)]


async def closed_loop(encoders: Sequence[Encoder], lanes: int, pool: list[str], seconds: float) -> float:
    """Texts per second with `lanes` concurrent requests, each backing off when refused."""
    numbers, ends, done = count(), time.monotonic() + seconds, 0

    async def lane(encoder: Encoder) -> None:
        nonlocal done
        delays = backoff(PATIENCE)
        while time.monotonic() < ends:
            try:
                await encoder.encode(eight(pool, next(numbers)))
            except DependencyDown:
                await asyncio.sleep(min(next(delays), max(0.0, ends - time.monotonic())))
                continue
            delays = backoff(PATIENCE)
            done += 8 * (time.monotonic() < ends)

    await asyncio.gather(*(lane(encoders[number % len(encoders)]) for number in range(lanes)))
    return done / seconds


async def measure(server: TritonServer, rounds: int, seconds: float) -> dict[str, object]:
    """Run all measurements in sequence."""
    process = OnnxEncoder(FOLDER)
    # A long deadline: on a busy machine this measurement may be slow but must not fail.
    triton = await TritonEncoder.open(FOLDER, settings(server.address, deadline_seconds=60))
    far = await difference(triton, process)
    found = await rounds_of(triton, process, server, rounds)
    await process.close()
    await triton.close()
    pool = texts_of(128)
    by_length = ratios(found)
    half = EncoderSettings().deadline_seconds / 2
    waits = await latencies(server, pool, seconds)
    return {
        "max_difference": far,
        "triton_over_in_process_batch_32": min(by_length[str(length)] for length in LENGTHS),
        "by_tokens": by_length,
        "rows": rows(found),
        "executions_per_request": await merged(server),
        "in_flight": waits,
        "in_flight_within_half_the_deadline": max(
            (row["in_flight"] for row in waits if row["p99_seconds"] <= half and not row["refused"]), default=0
        ),
        "overload": await overload(server, pool, 3, seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/triton.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each latency and overload measurement")
    arguments = parser.parse_args()
    with TritonServer() as server:
        found = asyncio.run(measure(server, arguments.rounds, arguments.seconds))
    report = {**found, "cores": len(os.sched_getaffinity(0)), "rounds": arguments.rounds}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
