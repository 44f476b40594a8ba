"""Protect memory against mass retirement: one mistaken import must not remove every tag from every content.

Tombstones of tags are examined together, up to the end of the topic. If more than a share of all tags would be retired
within a minute, neither these records nor any later ones are applied: the positions stay, so the taxonomy version and
the recorded offsets remain correct. Publishing the tags again lifts the hold.
"""

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from confluent_kafka import Message

from tagbus.stream import telemetry
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka.message import partition_of
from tagbus.stream.kafka.reader import Chunk

log = logging.getLogger(__name__)

# Returns the number of the given tags in memory, and of all tags.
Counted = Callable[[Collection[str]], Awaitable[tuple[int, int]]]

WINDOW_SECONDS: Final = 60.0
# A taxonomy of fewer tags may be retired at any rate.
FEWEST: Final = 100
# Maximum number of records that are examined together, and of records that wait while a memory is held.
TOGETHER: Final = 10_000
MOST: Final = 200_000


def held(left: int, before: int, share: float) -> DependencyDown | None:
    """The error for a full read that would leave too few of the existing tags; None if it may continue."""
    if before < FEWEST or left >= (1 - share) * before:
        return None
    return DependencyDown(
        f"the topic of tags has {left} tags, memory {before}: more than TAGBUS_MEMORY__RETIRE_SHARE={share:g} of them "
        "would be retired, so nothing is changed; publish them again and restart, or restart with "
        "TAGBUS_MEMORY__RETIRE_SHARE=1 if this is intended"
    )


class Guard:
    """The records that were read but may not be applied yet. Belongs to one follower."""

    def __init__(self, topic: str, share: float, counted: Counted) -> None:
        """`topic`: the topic of tags. `share`: the share of all tags that may be retired within a minute."""
        self._topic = topic
        self._share = share
        self._counted = counted
        self._waiting: list[Chunk] = []
        self._records = 0
        # Whether any waiting record retires a tag, and whether records arrived since the last count.
        self._retiring = False
        self._unseen = False
        # Times (Unix seconds) and numbers of retired tags.
        self._retired: deque[tuple[float, int]] = deque()
        # Why records are held back; empty if they are applied.
        self.problem = ""

    @property
    def full(self) -> bool:
        """Whether so many records wait that no more should be read."""
        return self._records >= MOST

    def take(self, chunk: Chunk) -> None:
        """Add a chunk that was read."""
        self._records += len(chunk.messages)
        self._retiring |= any(self._retires(message) for message in chunk.messages)
        self._unseen |= bool(chunk.messages)
        if chunk.messages or not self._waiting:
            self._waiting.append(chunk)
        else:
            self._waiting[-1] = replace(self._waiting[-1], positions=chunk.positions)

    async def released(self) -> list[Chunk]:
        """The chunks that may be applied now, in order. Raises DependencyDown; calling it again is safe."""
        if not self._retiring:
            return self._let_go()
        if not self._unseen or not (self._at_end(self._waiting[-1]) or self._records >= TOGETHER):
            return []
        gone, there = await self._counted(self._leaving())
        self._unseen = False
        now = time.monotonic()
        while self._retired and self._retired[0][0] < now - WINDOW_SECONDS:
            self._retired.popleft()
        recent = sum(count for _, count in self._retired)
        if there + recent >= FEWEST and gone + recent > self._share * (there + recent):
            self._hold(gone + recent, there + recent)
            return []
        self._retired.append((now, gone))
        return self._let_go()

    def _hold(self, gone: int, there: int) -> None:
        words = (
            f"{gone} of {there} tags would be retired within a minute, more than TAGBUS_MEMORY__RETIRE_SHARE="
            f"{self._share:g}: nothing is applied until they are published again; restart with "
            "TAGBUS_MEMORY__RETIRE_SHARE=1 if this is intended"
        )
        if not self.problem:
            log.error("memory is held: %s", words)
        self.problem = words
        telemetry.MEMORY_HELD.set(1)

    def _let_go(self) -> list[Chunk]:
        if self.problem:
            log.warning("memory is no longer held")
            self.problem = ""
            telemetry.MEMORY_HELD.set(0)
        chunks, self._waiting, self._records, self._retiring = self._waiting, [], 0, False
        return chunks

    def _leaving(self) -> list[str]:
        """The keys whose last record is a tombstone."""
        last: dict[bytes, bool] = {}
        for chunk in self._waiting:
            for message in chunk.messages:
                key = message.key()
                if partition_of(message)[0] == self._topic and isinstance(key, bytes):
                    last[key] = message.value() is None
        return [key.decode(errors="replace") for key, leaves in last.items() if leaves]

    def _retires(self, message: Message) -> bool:
        return message.value() is None and partition_of(message)[0] == self._topic

    def _at_end(self, chunk: Chunk) -> bool:
        of_tags: Sequence[tuple[str, int]] = [one for one in chunk.positions.next if one[0] == self._topic]
        return chunk.positions.at_end.issuperset(of_tags)
