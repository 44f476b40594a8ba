"""Recalibrate from people's decisions: fit new curves on `feedback` and publish better ones to `releases`.

One process does this: the joiner that holds the first partition of `feedback`. It reads all partitions, in no group.
Two processes may overlap briefly during a rebalance; they write the same curves.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Message

from tagbus.stream import telemetry
from tagbus.stream.app.components import REGISTRY
from tagbus.stream.app.judge.fitting import learnt
from tagbus.stream.app.releases import recorded
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Tombstone, decode_decision
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.release import Fingerprint, encode_release
from tagbus.stream.errors import Poison, Retryable, TopicMissing
from tagbus.stream.feedback.learning import Observations, Refit, refit
from tagbus.stream.index.releases import ReleaseFollower, Releases
from tagbus.stream.kafka.follower import TopicFollower
from tagbus.stream.kafka.message import record_of, timestamp
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.llm.component import JUDGE

log = logging.getLogger(__name__)

STEPS: Final = {one.name: one.step for one in (*REGISTRY, JUDGE)}
CHUNK: Final = 500
WAIT_SECONDS: Final = 0.5
# Interval of checks whether this process leads.
LEAD_SECONDS: Final = 1.0
# A fit starts once this many decisions, and this share of all, have arrived since the last one.
FRESH: Final = 20
FRESH_SHARE: Final = 0.05


class Recalibrator:
    """Fits curves while `leads` is true."""

    def __init__(self, settings: Settings, leads: Callable[[], bool]) -> None:
        self._settings = settings
        self._leads = leads
        self._releases: Releases | None = None
        self._observations = Observations(STEPS)
        self._total = 0
        self._fresh = 0

    async def run(self) -> None:
        """Run until cancelled. Raises UserError if a right is missing, Fatal, MemoryLost if `releases` is recreated."""
        if not self._settings.feedback.calibrate_seconds:
            return
        while True:
            if self._leads():
                await self._lead()
            await asyncio.sleep(LEAD_SECONDS)

    async def _lead(self) -> None:
        self._observations, self._releases = Observations(STEPS), None
        self._total = self._fresh = 0
        following = asyncio.create_task(ReleaseFollower(self._settings, self._on_releases).run())
        try:
            await self._follow(following)
        except Retryable as error:
            log.warning("calibration: %s", error)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, releases: "asyncio.Task[None]") -> None:
        clock = asyncio.get_running_loop().time
        last = -self._settings.feedback.calibrate_seconds
        async with TopicFollower(TopicReader(self._settings.kafka), [self._settings.topics.feedback]) as following:
            while self._leads():
                if releases.done():
                    releases.result()
                chunk = await following.read(CHUNK, WAIT_SECONDS)
                self._learn(chunk.messages)
                wait = self._settings.feedback.calibrate_seconds
                if chunk.positions.caught_up() and self._due() and clock() - last >= wait:
                    last, self._fresh = clock(), 0
                    await asyncio.to_thread(self._fit, self._releases or Releases())

    def _on_releases(self, releases: Releases) -> None:
        self._releases = releases

    def _due(self) -> bool:
        return self._releases is not None and self._fresh >= max(FRESH, FRESH_SHARE * self._total)

    def _learn(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._total += 1
            self._fresh += 1
            try:
                event = decode_decision(record_of(message))
            except Poison:
                # The joiner dead-letters it.
                continue
            if isinstance(event, Tombstone):
                self._observations.forget(event.key)
            else:
                self._observations.add(_bounded(event, message))

    def _fit(self, releases: Releases) -> None:
        """Fit the paths of the release that people judged last; others are no longer in force. Raises as TopicWriter
        does."""
        judged, asked = self._observations.judged(), self._observations.asked()
        if not judged:
            return
        latest = max(judged, key=lambda pairs: pairs[-1].time)[-1].fingerprint.release
        # The judge's answers are known for these: a curve for the scores alone would leave its weight unchanged.
        weighed = set[str]()
        for contents in asked:
            fingerprint = contents[0].fingerprint
            if fingerprint.release == latest:
                old = _in_force(releases, fingerprint)
                if (found := learnt(contents, old, self._settings.cascade)) is not None:
                    weighed.add(str(fingerprint))
                    self._take(fingerprint, found)
        for pairs in judged:
            fingerprint = pairs[0].fingerprint
            if fingerprint.release == latest and str(fingerprint) not in weighed:
                self._take(fingerprint, refit(pairs, _in_force(releases, fingerprint)))

    def _take(self, fingerprint: Fingerprint, found: Refit | None) -> None:
        if found is None:
            return
        telemetry.CALIBRATION_PAIRS.set(found.pairs)
        telemetry.CALIBRATION_EFFECTIVE.set(found.effective)
        telemetry.CALIBRATIONS.labels(outcome="kept" if found.curve is None else "taken").inc()
        log.info(
            "calibration: %s: pairs=%d effective=%.0f log_loss old=%.4f new=%.4f, %s",
            *(fingerprint, found.pairs, found.effective, found.old_loss, found.new_loss),
            "the old one stays" if found.curve is None else f"{found.curve.name} is better",
        )
        if found.curve is not None:
            self._publish(found.curve)

    def _publish(self, curve: Calibration) -> None:
        try:
            recorded.publish(self._settings, encode_release(curve))
        except TopicMissing as error:
            log.warning("calibration: %s is not published: %s", curve.name, error)


def _bounded(decision: Decision, message: Message) -> Decision:
    """The decision; one with a time to come as of its record: it would be the latest until then, and so would its
    release."""
    now = datetime.now(UTC)
    return decision if decision.time <= now else decision.model_copy(update={"time": min(now, timestamp(message))})


def _in_force(releases: Releases, fingerprint: Fingerprint) -> Calibration | None:
    """The curve on the topic, if it is fitted to these scores; workers use no other."""
    curve = releases.calibrations.get((fingerprint.release, fingerprint.path))
    return None if curve is None or curve.fingerprint != fingerprint else Calibration(**curve.model_dump())
