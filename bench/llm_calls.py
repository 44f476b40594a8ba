"""The judge's calls to a server that answers immediately, beside a bare loop of the same client in the same run.

    python bench/llm_calls.py [--calls 600] [--rounds 3] [--out bench/results/llm.json]

The server is a separate process that sends the same bytes to every request. Each round sends the same bodies twice, 16
concurrently: by the judge, which renders prompts, reserves budget and parses answers, and by the SDK alone. The
figures are medians of the rounds; `own_cpu_ms_per_call` is this process's CPU time beyond the bare loop. Then 10,000
contents wait for a server that does not answer. The figures are stored beside those of bench/llm.py in its file.
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2
import openai

from tagbus.stream.config import BudgetSettings
from tagbus.stream.contract.events import Content
from tagbus.stream.llm.base import Asked, Backend, Question
from tagbus.stream.llm.spending.budget import Budget, NoLedger
from tagbus.stream.llm.spending.meter import SpendingMeter
from tagbus.stream.llm.spending.prices import price_by

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.llm.asking import directly

TAGS, AT_ONCE, WAITING = 10, 16, 10_000
BUDGET = BudgetSettings(tokens_per_day=10**12, price_in=1.0)
TOP = [{"token": token, "logprob": odds, "bytes": None} for token, odds in (("Yes", -0.2), ("No", -1.8))]
CHOICE = {
    "index": 0,
    "finish_reason": "length",
    "message": {"role": "assistant", "content": "Yes"},
    "logprobs": {"content": [{**TOP[0], "top_logprobs": TOP}]},
}
ANSWERS = {
    "decisions": {
        "model": "m",
        "answers": [{"type": "predicate", "name": None, "probability": 0.5}] * TAGS,
        "usage": {"input_tokens": 200, "output_tokens": 0},
    },
    "completions": {"model": "m", "choices": [CHOICE], "usage": {"prompt_tokens": 200, "completion_tokens": 1}},
}


@dataclass(frozen=True)
class Took:
    """Calls a second, and CPU milliseconds of this process a call."""

    rate: float
    cpu: float


def serve(told: Connection) -> None:
    """Answer every POST immediately, except those to /silent/, which are never answered."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, _, fields = head.partition(b"\r\n")
            length = next(int(one[15:]) for one in fields.lower().split(b"\r\n") if one.startswith(b"content-length:"))
            await reader.readexactly(length)
            if b"/silent/" in first:
                await asyncio.sleep(3600)
            body = answers[first.split(b" ")[1].rpartition(b"/")[2].decode()]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(quietly, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    answers = {name: json.dumps(body).encode() for name, body in ANSWERS.items()}
    asyncio.run(run())


def contents(count: int, seconds: float) -> list[Asked]:
    """Return contents as long as a title and an abstract, with ten tags each."""
    text = "The library catalogue describes what a book is about in a few sentences, and people gave it subjects. " * 4
    tags = tuple(Question(f"t{n}", f"subject number {n}", "what it stands for") for n in range(TAGS))
    until = time.monotonic() + seconds
    return [Asked(Content(id=f"c{n}", title=f"Title {n}", text=text), tags, deadline=until) for n in range(count)]


def meter(url: str) -> SpendingMeter:
    budget = Budget(BUDGET, ("bench", "one"), lambda: 1.0, NoLedger())
    return SpendingMeter(BUDGET, budget, price_by(BUDGET, url), lambda: 1.0, "m")


async def timed(calls: int, act: Callable[[], Awaitable[object]]) -> Took:
    since, cpu = time.perf_counter(), time.process_time()
    await act()
    return Took(calls / (time.perf_counter() - since), 1000 * (time.process_time() - cpu) / calls)


async def bodies(url: str, backend: Backend, asked: Sequence[Asked]) -> list[tuple[str, object]]:
    """Return the judge's request bodies for these contents."""
    sent: list[tuple[str, object]] = []
    async with directly(url, backend, in_flight=AT_ONCE, profile="generic") as judge:
        client = judge._asking._server.client
        post = client._sdk.post

        async def recorded(path: str, **given: object) -> object:
            sent.append((path, given["body"]))
            return await post(path, **given)

        client._sdk.post = recorded
        await judge.judge(asked)
    return sent


async def bare(url: str, sent: Sequence[tuple[str, object]]) -> None:
    """Send the same requests by the SDK alone."""
    limits = httpx2.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    http = openai.DefaultAsyncHttpxClient(limits=limits)
    left = iter(sent)

    async def loop() -> None:
        for path, body in left:
            await sdk.post(path, cast_to=httpx2.Response, body=body, options={"timeout": 60.0})

    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as sdk:
        await asyncio.gather(*(loop() for _ in range(AT_ONCE)))


async def compare(url: str, backend: Backend, calls: int, rounds: int) -> tuple[Took, Took]:
    """The judge, and the bare loop: medians."""
    asked = contents(calls if backend == "decision_api" else calls // TAGS, 600)
    sent = await bodies(url, backend, asked)
    assert len(sent) == calls
    ours, theirs = [], []
    async with directly(url, backend, meter(url), in_flight=AT_ONCE, profile="generic") as judge:
        for _ in range(rounds):
            ours.append(await timed(calls, lambda: judge.judge(asked)))
            theirs.append(await timed(calls, lambda: bare(url, sent)))
    return median(ours), median(theirs)


def median(took: Sequence[Took]) -> Took:
    return Took(statistics.median(one.rate for one in took), statistics.median(one.cpu for one in took))


def resident() -> float:
    """MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 1e6


async def waiting(url: str) -> dict[str, float]:
    """Measure the memory of `count` contents while they wait for a server."""
    asked = contents(WAITING, 3600)
    before = resident()
    async with directly(url, "decision_api", meter(url), in_flight=AT_ONCE, deadline_seconds=3600) as judge:
        all_ = asyncio.create_task(judge.judge(asked))
        await asyncio.sleep(3)
        begun = resident()
        await asyncio.sleep(5)
        after = resident()
        all_.cancel()
        await asyncio.wait([all_])
    return {
        "waiting": WAITING,
        "mb_that_they_take": round(begun - before, 1),
        "mb_more_after_5_s": round(after - begun, 1),
    }


async def measure(port: int, calls: int, rounds: int) -> dict[str, object]:
    url = f"http://127.0.0.1:{port}/v1"
    found: dict[str, object] = {}
    own = []
    for backend, name in (("decision_api", "decision_api"), ("yesno", "yesno")):
        ours, theirs = await compare(url, backend, calls, rounds)
        own.append(ours.cpu - theirs.cpu)
        found[f"{name}_over_bare_client"] = round(ours.rate / theirs.rate, 3)
        found[f"{name}_calls_a_second"] = round(ours.rate, 1)
        found[f"{name}_bare_calls_a_second"] = round(theirs.rate, 1)
        found[f"{name}_own_cpu_ms_per_call"] = round(own[-1], 3)
    found["own_cpu_ms_per_call"] = round(max(own), 3)
    found["ten_thousand_waiting"] = await waiting(f"http://127.0.0.1:{port}/silent/v1")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/llm.json"))
    given = parser.parse_args()
    mine, theirs = Pipe()
    server = Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    found = asyncio.run(measure(mine.recv(), given.calls, given.rounds))
    server.terminate()
    report = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    given.out.write_text(json.dumps({**report, **found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
