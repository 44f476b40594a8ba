"""An even request rate: each request gets a turn, or is refused immediately if that is too late."""

from collections.abc import Callable
from time import monotonic

from tagbus.stream.errors import Withheld


class Rate:
    """At most `rate` requests a minute, each `60 / rate` seconds after the previous one.

    The rate is read at each request, as it changes with the worker's share.
    """

    def __init__(self, per_minute: Callable[[], float | None], clock: Callable[[], float] = monotonic) -> None:
        """`per_minute` None: no limit."""
        self._per_minute = per_minute
        self._clock = clock
        self._next = 0.0

    def turn(self, deadline: float | None) -> float:
        """Seconds until the turn of this request. Raises Withheld if that is after `deadline`, on the clock; then the
        turn is not taken."""
        rate = self._per_minute()
        if rate is None:
            return 0.0
        now = self._clock()
        at = max(now, self._next)
        if rate <= 0 or (deadline is not None and at > deadline):
            raise Withheld("rate", f"the rate of {rate:.3g} requests a minute leaves no turn before the deadline")
        self._next = at + 60 / rate
        return at - now
