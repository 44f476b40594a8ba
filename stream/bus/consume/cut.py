"""What goes under way: batches that are due and find room, or one record alone where a partition is careful."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tagbus.stream.bus.consume.buffer import Buffer, Cut
from tagbus.stream.bus.consume.crash_loop import Starts
from tagbus.stream.bus.consume.span import Pace
from tagbus.stream.bus.in_flight import Batch, InFlight, InFlightBatch, Place
from tagbus.stream.bus.process.version_topic import Order
from tagbus.stream.config import BatchSettings


class Cutter:
    """From buffers to flights. Belongs to the poll thread."""

    def __init__(
        self,
        settings: BatchSettings,
        in_flight: InFlight,
        starts: Starts,
        order: Order,
        pace: Pace,
        start: Callable[[InFlightBatch], None],
    ) -> None:
        """`start` hands a batch to the tagger and returns at once."""
        self._in_flight = in_flight
        self._starts = starts
        self._order = order
        self._pace = pace
        self._start = start
        # No batch may take more than its share of the bytes, so that a partition cannot take all.
        share = max(1, settings.in_flight_bytes // (2 * settings.in_flight))
        self.limit = Cut(pace.most(settings.contents), share, settings.seconds)

    def cut(self, buffers: Mapping[Place, Buffer]) -> None:
        """Put under way what is due and finds room, the longest waiting first."""
        now = time.monotonic()
        self._count(buffers)
        if self._starts.careful and self._one(buffers, now):
            return
        for place, buffer in sorted(buffers.items(), key=lambda item: item[1].oldest):
            while buffer.due(self.limit, now):
                if not self._may(place, buffer, now):
                    buffer.blocked = buffer.blocked or now
                    break
                self._start(self._enter(buffer.take(place, self.limit, now), now))

    def _may(self, place: Place, buffer: Buffer, now: float) -> bool:
        return (
            self._in_flight.room(place, min(buffer.size, self.limit.size))
            and self._starts.counted(place)
            and self._order.ready(place)
            and self._pace.free(now)
        )

    def _enter(self, batch: Batch, now: float) -> InFlightBatch:
        self._pace.spend(len(batch.sources), now)
        return self._in_flight.start(batch)

    def _count(self, buffers: Mapping[Place, Buffer]) -> None:
        if self._starts.fresh:
            heads = {place: buffer.head for place, buffer in buffers.items() if buffer.records}
            self._starts.count({place: head for place, head in heads.items() if place in self._starts.fresh})

    def _one(self, buffers: Mapping[Place, Buffer], now: float) -> bool:
        """A record of a careful partition goes alone: nothing else is under way in this process, or the end of the
        process could be another content's fault. Returns whether the others wait for it."""
        if self._in_flight.busy():
            due = any(buffers[place].records for place in self._starts.careful)
            waiting = due or self._starts.under_way is not None
        else:
            self._starts.settle()
            places = [place for place in self._starts.careful if buffers[place].records and self._order.ready(place)]
            waiting = bool(places)
            if places and self._pace.free(now):
                place = min(places, key=lambda place: buffers[place].oldest)
                self._alone(place, buffers[place], now)
        if waiting:
            for buffer in buffers.values():
                if buffer.due(self.limit, now):
                    buffer.blocked = buffer.blocked or now
        return waiting

    def _alone(self, place: Place, buffer: Buffer, now: float) -> None:
        if not self._starts.alone(place, buffer.head):
            return
        entry = self._enter(buffer.take(place, replace(self.limit, contents=1), now), now)
        verdict = self._starts.dead(entry.batch.sources[0])
        if verdict is None:
            self._start(entry)
        else:
            self._in_flight.complete(entry, [verdict])
