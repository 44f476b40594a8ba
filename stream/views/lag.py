"""The lag of a view behind its topic: records not yet in its rows, and how long the oldest of them has waited."""

import time
from collections.abc import Callable, Mapping

from tagbus.stream import telemetry
from tagbus.stream.views.transport import Standing


class Lag:
    """The lag of one view over this replica's partitions."""

    def __init__(self, view: str, clock: Callable[[], float] = time.time) -> None:
        self._records = telemetry.VIEWS_LAG.labels(view)
        self._seconds = telemetry.VIEWS_LAG_SECONDS.labels(view)
        self._clock = clock
        self._started = clock()
        # Since when each partition has been behind: the last time it was caught up.
        self._level: dict[int, float] = {}

    def show(self, standings: Mapping[int, Standing]) -> None:
        """Set the gauges. The time of an unfetched record is unknown: it arrived after its partition was last caught
        up."""
        now = self._clock()
        self._level = {partition: self._level.get(partition, self._started) for partition in standings}
        self._level |= {partition: now for partition, one in standings.items() if not one.waiting}
        self._records.set(sum(one.waiting for one in standings.values()))
        self._seconds.set(
            max((now - self._since(partition, one) for partition, one in standings.items() if one.waiting), default=0.0)
        )

    def _since(self, partition: int, standing: Standing) -> float:
        return min(self._clock(), self._level[partition] if standing.oldest is None else standing.oldest)
