"""The readiness probe: a real request to encoder and memory. The health server makes it on the worker's loop, unless a
batch has just been one."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Final

from tagbus.stream.errors import TagbusError

# Interval between probes, and the deadline of one, in seconds.
PROBE_SECONDS: Final = 5.0
# How long an answered batch speaks for a probe that is not answered: a probe waits behind the batches in flight, with
# the defaults up to 512 contents. Where these were long texts, a worker with two cores was never ready.
BUSY_SECONDS: Final = 30.0

# Makes a request with a text that is in no cache; returns why it failed, or an empty string.
Ask = Callable[[str], Coroutine[None, None, str]]


class Probe:
    """Makes a request at most every PROBE_SECONDS."""

    def __init__(self, ask: Ask) -> None:
        self._request = ask
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last = (0.0, "starting")
        # Of time.monotonic(); the first batch comes after `open`.
        self._answered = float("-inf")

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start probing on that loop, now that the memory is complete."""
        self._loop = loop

    def answered(self) -> None:
        """Encoder and memory have answered a batch."""
        self._answered = time.monotonic()

    def problem(self) -> str:
        """Why encoder or memory does not answer; empty if both do. Blocks for at most PROBE_SECONDS."""
        if time.monotonic() - self._answered < PROBE_SECONDS:
            return ""
        probed, problem = self._last
        if time.monotonic() - probed < PROBE_SECONDS:
            return problem
        self._last = (time.monotonic(), self._ask())
        return self._last[1]

    def _ask(self) -> str:
        if self._loop is None:
            return "the memory is not built yet"
        if self._loop.is_closed():
            return "stopping"
        # A new text each time: the encoder's cache must not answer for a server that is down.
        asked = asyncio.run_coroutine_threadsafe(self._request(f"is it ready at {time.time():.3f}"), self._loop)
        try:
            return asked.result(PROBE_SECONDS)
        except TimeoutError:
            asked.cancel()
            if time.monotonic() - self._answered < BUSY_SECONDS:
                return ""
            return f"encoder and memory did not answer within {PROBE_SECONDS:.0f} s"
        except CancelledError:
            return "stopping"
        except TagbusError as error:
            return str(error)
