"""The circuit breaker: a server that keeps failing gets no requests for a while, then one trial request.

A server that asks to wait gets none for as long as it asked."""

from collections.abc import Callable
from time import monotonic
from typing import Final, Literal

from prometheus_client import Gauge

from tagbus.stream import telemetry
from tagbus.stream.errors import Withheld

State = Literal["closed", "open", "half_open"]
STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")
# The longest wait that a server is granted: one wrong header must not end judging for a day.
LONGEST_PAUSE: Final = 300.0


class Breaker:
    """Opens after `failures` in a row; after `seconds` it admits one request, whose outcome closes it or opens it
    again. One event loop."""

    def __init__(
        self,
        failures: int,
        seconds: float,
        clock: Callable[[], float] = monotonic,
        server: str = "the language model",
        gauge: Gauge = telemetry.LLM_BREAKER,
    ) -> None:
        """`server`: its name in messages; `gauge` shows the state."""
        self._server = server
        self._gauge = gauge
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failed = 0
        self._opened: float | None = None
        self._probing = False
        self._paused = 0.0

    @property
    def state(self) -> State:
        """`half_open` from when a trial request is allowed until its outcome is known."""
        if self.pause_left:
            return "open"
        if self._opened is None:
            return "closed"
        return "half_open" if self._probing or self._clock() >= self._opened + self._seconds else "open"

    @property
    def pause_left(self) -> float:
        """Seconds until the end of the wait that the server asked for; 0 without one."""
        return max(0.0, self._paused - self._clock())

    def enter(self) -> bool:
        """Admit a request; returns whether it is the trial. Raises Withheld while nothing may be sent."""
        if left := self.pause_left:
            raise Withheld("breaker", f"{self._server} asked to wait; it is asked again in {left:.1f} s")
        if self._opened is None:
            return False
        left = self._opened + self._seconds - self._clock()
        if self._probing or left > 0:
            said = "one request is being tried" if self._probing else f"it is tried again in {left:.1f} s"
            raise Withheld("breaker", f"{self._server} failed {self._failed} times in a row; {said}")
        self._probing = True
        self._tell()
        return True

    def succeeded(self) -> None:
        """Record that a request was answered."""
        self._failed, self._opened, self._probing = 0, None, False
        self._tell()

    def failed(self) -> None:
        """Record a failure that the next request would share."""
        self._failed += 1
        if self._failed >= self._most or self._probing:
            self._opened, self._probing = self._clock(), False
        self._tell()

    def pause(self, seconds: float) -> None:
        """Admit nothing for as long as the server asked, at most LONGEST_PAUSE. That is no failure."""
        self._paused = max(self._paused, self._clock() + min(seconds, LONGEST_PAUSE))
        self.unknown()

    def unknown(self) -> None:
        """Record a trial that says nothing about the server: another trial may follow."""
        self._probing = False
        self._tell()

    def _tell(self) -> None:
        self._gauge.set(STATES.index(self.state))
