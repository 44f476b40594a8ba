"""The readiness probe of a worker: what speaks for it while its encoder is busy, and what does not."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator

import pytest

from tagbus.stream.app import probe
from tagbus.stream.app.probe import Probe
from tagbus.stream.errors import DependencyDown

Ask = Callable[[str], Coroutine[None, None, str]]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own, as a worker has one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    # Cancelled probes end first.
    loop.call_soon_threadsafe(loop.call_later, 0, loop.stop)
    thread.join(120)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.05)


async def never(_: str) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def down(_: str) -> str:
    raise DependencyDown("Triton is down")


def opened(ask: Ask, loop: asyncio.AbstractEventLoop) -> Probe:
    made = Probe(ask)
    made.open(loop)
    return made


def test_a_probe_that_waits_behind_batches_is_no_problem_while_they_are_answered(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an encoder that never gets to the probe
    busy = opened(never, loop)
    assert busy.problem() == "encoder and memory did not answer within 0 s"
    # When a batch is answered
    busy.answered()
    # Then that is as good as a probe, and still is when the next one is not answered
    assert busy.problem() == ""
    assert busy._ask() == ""
    # But not when the last one was long ago.
    monkeypatch.setattr(probe, "BUSY_SECONDS", 0.0)
    assert busy._ask() == "encoder and memory did not answer within 0 s"


def test_a_dependency_that_says_that_it_is_down_is_a_problem_at_once(loop: asyncio.AbstractEventLoop) -> None:
    probed = opened(down, loop)
    probed.answered()
    assert probed._ask() == "Triton is down"
