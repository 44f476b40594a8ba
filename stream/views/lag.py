"""How far a view is behind its topic: records that are not in its rows, and how long the oldest of them waits."""

import time
from collections.abc import Callable, Mapping

from tagbus.stream import telemetry
from tagbus.stream.views.transport import Standing


class Lag:
    """The lag of one view over the partitions that this replica has."""

    def __init__(self, view: str, clock: Callable[[], float] = time.time) -> None:
        self._records = telemetry.VIEWS_LAG.labels(view)
        self._seconds = telemetry.VIEWS_LAG_SECONDS.labels(view)
        self._clock = clock
        self._started = clock()
        # Since when each partition has been behind: the last time that it was not.
        self._level: dict[int, float] = {}

    def show(self, standings: Mapping[int, Standing]) -> None:
        """Set the gauges. The time of a record that is not fetched is unknown: it came after its partition was last
        caught up."""
        now = self._clock()
        self._level = {partition: self._level.get(partition, self._started) for partition in standings}
        self._level |= {partition: now for partition, one in standings.items() if not one.waiting}
        self._records.set(sum(one.waiting for one in standings.values()))
        self._seconds.set(
            max((now - self._since(partition, one) for partition, one in standings.items() if one.waiting), default=0.0)
        )

    def _since(self, partition: int, standing: Standing) -> float:
        return min(self._clock(), self._level[partition] if standing.oldest is None else standing.oldest)
