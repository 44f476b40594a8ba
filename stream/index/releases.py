"""Follow the topic `releases`: the releases, the active one, and their calibrations."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from confluent_kafka import Message

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.contract.release import (
    ACTIVE,
    CALIBRATION,
    Active,
    Curve,
    ReleaseRecord,
    calibration_key,
    decode_release,
)
from tagbus.stream.errors import MemoryLost, Poison
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.message import offset_of, partition_of, record_of
from tagbus.stream.kafka.reader import Gap, Positions, TopicReader

log = logging.getLogger(__name__)

MOST = 100
WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Releases:
    """The state of the topic: records by name, the active release, and the calibrations by release and path."""

    records: Mapping[str, ReleaseRecord] = field(default_factory=dict)
    active: Active | None = None
    calibrations: Mapping[tuple[str, str], Curve] = field(default_factory=dict)

    def after(self, record: Record) -> "Releases":
        """The state after one more record. Raises Poison for an invalid record."""
        match decode_release(record):
            case Tombstone(key) if key == ACTIVE:
                return replace(self, active=None)
            case Tombstone(key) if key.startswith(CALIBRATION):
                left = {place: curve for place, curve in self.calibrations.items() if calibration_key(*place) != key}
                return replace(self, calibrations=left)
            case Tombstone(key):
                return replace(self, records={name: one for name, one in self.records.items() if name != key})
            case Active() as active:
                return replace(self, active=active)
            case Curve() as curve:
                return replace(self, calibrations={**self.calibrations, (curve.release, curve.path): curve})
            case ReleaseRecord() as one:
                return replace(self, records={**self.records, one.release.name: one})

    def calibrations_of(self, release: str) -> dict[str, Curve]:
        """The calibrations of a release, by path."""
        return {path: curve for (name, path), curve in self.calibrations.items() if name == release}


class ReleaseFollower:
    """Calls `changed` with the state of the topic once it is read to its end, then after each change.

    A missing topic means that releases are not in use: nothing is reported, and the topic is looked up every 30 s.
    """

    def __init__(self, settings: Settings, changed: Callable[[Releases], None]) -> None:
        self._settings = settings
        self._changed = changed
        self._releases = Releases()
        self._told = False

    async def run(self) -> None:
        """Follow until cancelled. Raises DependencyDown if no broker answers at the start, UserError if Kafka denies
        access, MemoryLost if the topic was recreated."""
        topic = self._settings.topics.releases
        reader = TopicReader(self._settings.kafka, _lost, [topic])
        async with TopicFollower(reader, [topic]) as following:
            self._tell(self._releases, following.positions)
            while True:
                chunk = await following.read(MOST, WAIT_SECONDS)
                self._tell(self._apply(chunk.messages), chunk.positions)

    def _tell(self, releases: Releases, positions: Positions) -> None:
        """Report once the topic is read up to its end at the start, then on every change."""
        fresh = releases != self._releases
        self._releases = releases
        if not positions.caught_up():
            return
        if fresh or not self._told:
            self._told = True
            self._changed(releases)

    def _apply(self, messages: Sequence[Message]) -> Releases:
        releases = self._releases
        for message in messages:
            try:
                releases = releases.after(record_of(message))
            except Poison as poison:
                log.warning("skipped %s:%d:%d: %s", *partition_of(message), offset_of(message), poison)
        return releases


def _lost(gap: Gap) -> MemoryLost:
    return MemoryLost(f"topic {gap.partition[0]} was recreated: {gap}; restart to read it again")
