"""The encoder through Triton beside the encoder in the process, in one run, on one machine.

    python bench/triton.py [--rounds 3] [--seconds 20] [--out bench/results/triton.json]

Texts a second and CPU seconds per 1,000 texts (client and server together), for texts of exactly 16 and 128 tokens and
for titles as they are; executions per request with and without padding to a few lengths; how long a request of 1,024
tokens takes by the number in flight, which encoder.in_flight comes from; and what is left at twice the capacity.
It runs the server of TritonServer: Triton 2.51 with the stand-in for its onnxruntime backend.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import numpy as np
from prometheus_client import REGISTRY
from tritonclient.grpc import InferenceServerClient

from tagbus.stream.cli.demo import example
from tagbus.stream.config import EncoderSettings, RetrySettings
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.encoder.tokens import TextReader
from tagbus.stream.encoder.triton import TritonEncoder
from tagbus.stream.errors import DependencyDown
from tagbus.stream.local.triton import TritonServer
from tagbus.stream.retry import backoff

BATCHES = (1, 8, 32, 64)
LENGTHS = (16, 128)
# Calls at once: as many batches as a worker has at its tagger (batch.in_flight).
CALLS = 4
# Tokens of one measurement: some 5 s on two cores.
TOKENS = 60_000
# Encoders that overload the server together, as workers do: 64 requests of 1,024 tokens in flight are twice what two
# cores do in the 2.5 s that a request may wait in the queue.
WORKERS = 8
# How a worker waits when its encoder is refused (retry.first_seconds, retry.cap_seconds).
PATIENCE = RetrySettings()
FOLDER = default_folder()
READER = TextReader(FOLDER, load_release(FOLDER))


def texts_of(tokens: int) -> list[str]:
    """Different texts of exactly so many tokens, made of titles and filled with short words."""
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
    return [json.loads(line)["text"] for line in example("exemplars.jsonl").read_text().splitlines()]


def settings(address: str, **changes: object) -> EncoderSettings:
    """Without the cache, which would answer what is asked twice."""
    return EncoderSettings(kind="triton", address=address, cache=0, **changes)  # type: ignore[arg-type]


async def at_once(limit: int, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """All calls, `limit` of them at a time."""
    left = iter(calls)

    async def lane() -> None:
        for call in left:
            await call()

    await asyncio.gather(*(lane() for _ in range(limit)))


async def speed(encoder: Encoder, server: TritonServer, texts: list[str], batch: int) -> tuple[float, float]:
    """Texts a second, and CPU seconds of this process and the server per 1,000 texts."""
    calls = [texts[start : start + batch] for start in range(0, len(texts) - batch + 1, batch)]
    await encoder.encode(calls[0])
    cpu, started = time.process_time() + server.cpu_seconds(), time.monotonic()
    await at_once(CALLS, [lambda call=call: encoder.encode(call) for call in calls])  # type: ignore[misc]
    seconds, used = time.monotonic() - started, time.process_time() + server.cpu_seconds() - cpu
    done = len(calls) * batch
    return done / seconds, 1000 * used / done


async def rows(triton: Encoder, process: Encoder, server: TritonServer, rounds: int) -> list[dict[str, object]]:
    """The median of the rounds, both encoders in turn in each."""
    kinds = {str(length): (length, texts_of(length)) for length in LENGTHS}
    real = titles()[:2048]
    kinds["titles"] = (round(statistics.mean(len(ids) for ids in READER.tokens(real))), real)
    report: list[dict[str, object]] = []
    for kind, (tokens, pool) in kinds.items():
        for batch in BATCHES if kind != "titles" else (32, 128):
            # Rounded up to whole batches for each call at once.
            wanted = max(batch * CALLS, TOKENS // tokens)
            texts = [pool[index % len(pool)] for index in range(wanted)]
            found: dict[str, list[tuple[float, float]]] = {"in process": [], "triton": []}
            for _ in range(rounds):
                found["in process"].append(await speed(process, server, texts, batch))
                found["triton"].append(await speed(triton, server, texts, batch))
            for name, measured in found.items():
                row = {
                    "name": name if kind != "titles" else f"{name}, titles",
                    "batch": batch,
                    "tokens": tokens,
                    "texts_per_second": round(statistics.median(rate for rate, _ in measured), 1),
                    "cpu_seconds_per_1000": round(statistics.median(cpu for _, cpu in measured), 2),
                }
                print(row, flush=True)
                report.append(row)
    return report


def ratio(found: list[dict[str, object]], batch: int) -> float:
    """The lowest of Triton over the process at a batch, of both lengths."""
    rates = {(row["name"], row["batch"], row["tokens"]): float(str(row["texts_per_second"])) for row in found}
    return min(rates["triton", batch, length] / rates["in process", batch, length] for length in LENGTHS)


async def difference(triton: Encoder, process: Encoder) -> float:
    texts = titles()[:1000]
    return float(np.abs(await triton.encode(texts) - await process.encode(texts)).max())


def executions(server: TritonServer) -> int:
    with InferenceServerClient(server.address) as client:
        return int(client.get_inference_statistics("encoder").model_stats[0].execution_count)


async def merged(server: TritonServer) -> dict[str, float]:
    """Executions a request: 200 titles sent one by one at once, padded to a few lengths and at their own."""
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
    """Requests of 1,024 tokens, so many always in flight."""
    report = []
    for limit in (2, 4, 8, 16, 32):
        encoder = await TritonEncoder.open(FOLDER, settings(server.address, in_flight=limit, deadline_seconds=60))
        took: list[float] = []
        numbers, ends = count(), time.monotonic() + seconds

        async def lane(
            encoder: Encoder = encoder, took: list[float] = took, numbers: "count[int]" = numbers, ends: float = ends
        ) -> None:
            while time.monotonic() < ends:
                started = time.monotonic()
                with suppress(DependencyDown):  # more than the queue lets wait
                    await encoder.encode(eight(pool, next(numbers)))
                    took.append(time.monotonic() - started)

        await asyncio.gather(*(lane() for _ in range(limit)))
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        report.append(
            {
                "in_flight": limit,
                "p50_seconds": round(cuts[49], 3),
                "p99_seconds": round(cuts[98], 3),
                "texts_per_second": round(8 * len(took) / seconds, 1),
            }
        )
        print(report[-1], flush=True)
        await encoder.close()
    return report


def eight(pool: list[str], number: int) -> list[str]:
    """A request of 1,024 tokens from texts of 128."""
    return list(islice(pool, number * 8 % (len(pool) - 8), number * 8 % (len(pool) - 8) + 8))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def overload(server: TritonServer, pool: list[str], seconds: float) -> dict[str, float]:
    """What the server gets done when twice as much is asked of it as it can hold.

    The peak is that of two workers. Goodput counts the texts of calls that ended well.
    """
    encoders = [await TritonEncoder.open(FOLDER, settings(server.address)) for _ in range(WORKERS)]
    peak = await closed_loop(encoders[:2], pool, seconds)
    retries, requests = counted("tagbus_retries_total", step="encode"), asked()
    busy = counted("tagbus_encoder_requests_total", outcome="busy")
    goodput = await closed_loop(encoders, pool, 2 * seconds)
    made = asked() - requests
    for encoder in encoders:
        await encoder.close()
    return {
        "peak_texts_per_second": round(peak, 1),
        "goodput_texts_per_second": round(goodput, 1),
        "goodput_over_peak": round(goodput / peak, 3),
        "requests_in_flight": WORKERS * encoders[0]._settings.in_flight,
        "refused_over_requests": round((counted("tagbus_encoder_requests_total", outcome="busy") - busy) / made, 3),
        "retries_over_requests": round((counted("tagbus_retries_total", step="encode") - retries) / made, 3),
    }


def asked() -> float:
    return sum(
        counted("tagbus_encoder_requests_total", outcome=outcome) for outcome in ("answered", "busy", "down", "failed")
    )


async def closed_loop(encoders: Sequence[Encoder], pool: list[str], seconds: float) -> float:
    """Texts a second that come back, each encoder asked for eight requests at once, backing off when refused."""
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

    await asyncio.gather(*(lane(encoder) for encoder in encoders for _ in range(8)))
    return done / seconds


async def measure(server: TritonServer, rounds: int, seconds: float) -> dict[str, object]:
    """Everything, one after the other."""
    process = OnnxEncoder(FOLDER)
    triton = await TritonEncoder.open(FOLDER, settings(server.address))
    far = await difference(triton, process)
    found = await rows(triton, process, server, rounds)
    await process.close()
    await triton.close()
    pool = texts_of(128)
    return {
        "max_difference": far,
        "triton_over_in_process_batch_32": round(ratio(found, 32), 3),
        "rows": found,
        "executions_per_request": await merged(server),
        "in_flight": await latencies(server, pool, seconds),
        "overload": await overload(server, pool, seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/triton.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of latency and overload")
    arguments = parser.parse_args()
    with TritonServer() as server:
        found = asyncio.run(measure(server, arguments.rounds, arguments.seconds))
    report = {**found, "cores": len(os.sched_getaffinity(0)), "rounds": arguments.rounds}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
