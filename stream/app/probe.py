"""The readiness probe: a real request to encoder and memory. The health server makes it on the worker's loop."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Final

from tagbus.stream.errors import TagbusError

# Interval between probes, and the deadline of one, in seconds.
PROBE_SECONDS: Final = 5.0

# Makes a request with a text that is in no cache; returns why it failed, or an empty string.
Ask = Callable[[str], Coroutine[None, None, str]]


class Probe:
    """Makes a request at most every PROBE_SECONDS."""

    def __init__(self, ask: Ask) -> None:
        self._request = ask
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last = (0.0, "starting")

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start probing on that loop, now that the memory is complete."""
        self._loop = loop

    def problem(self) -> str:
        """Why encoder or memory does not answer; empty if both do. Blocks for at most PROBE_SECONDS."""
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
            return f"encoder and memory did not answer within {PROBE_SECONDS:.0f} s"
        except CancelledError:
            return "stopping"
        except TagbusError as error:
            return str(error)
