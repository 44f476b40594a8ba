"""Content versions: the published version of each content of a partition, and whether a new one is older.

Batches of a partition are processed concurrently and end in any order, yet each content is treated as if they ended one
by one, in offset order. A content in flight counts as published as soon as that is decided; while it is undecided and
matters, the later batch waits for the earlier one. Nothing here waits or looks across partitions.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from tagbus.stream import telemetry
from tagbus.stream.bus.process.recent import Recent
from tagbus.stream.bus.process.stamps import Stamp, older, read, withdrawn


class Published:
    """The published stamp of each id, a bounded number: the oldest are forgotten.

    Keys are Python's hashes of ids: 64 bits, with another key in each process. With a million ids in memory a new one
    collides at odds of 1 to 1.8e13, and no outsider can provoke it.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: number of ids."""
        self._stamps: Recent[int, Stamp] = Recent(limit)

    def __len__(self) -> int:
        return len(self._stamps)

    def get(self, key: int) -> Stamp:
        """0 if none is known."""
        return self._stamps.get(key) or 0

    def put(self, key: int, given: Stamp) -> None:
        """Set the newest stamp of an id; 0 forgets it."""
        if given:
            self._stamps.put(key, given)
        else:
            self._stamps.drop(key)

    def resize(self, limit: int) -> None:
        """Keep at most `limit` ids from now on."""
        self._stamps.resize(limit)


@dataclass(slots=True, eq=False)
class PendingVersion:
    """A content in flight, or its withdrawal. `passes`: whether it will be published; None: not decided yet."""

    claims: "BatchClaims"
    key: int
    stamp: Stamp
    passes: bool | None = None
    # Whether it depends on an earlier, undecided one.
    contested: bool = False
    withdraws: bool = False

    def after(self, before: Stamp) -> Stamp:
        """The stamp in force once it is published; `before` is the previous one."""
        return withdrawn(before, self.stamp) if self.withdraws else self.stamp


@dataclass(slots=True)
class PartitionVersions:
    """The versions of one partition in one assignment. Belongs to the loop thread once it is `ready`; another thread
    fills it before."""

    published: Published
    ready: bool = False
    # What its topic lacks, in words; empty if nothing.
    lacks: str = ""
    _epoch: int = 0
    # In offset order. Nearly all have one entry: a list of one takes 64 bytes, a deque 760.
    _waiting: dict[int, list[PendingVersion]] = field(default_factory=dict)
    _batches: deque["BatchClaims"] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.published)

    def learn(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of the topic of published versions."""
        telemetry.RESTORED.inc()
        self.published.put(hash(key.decode(errors="replace")), 0 if value is None else read(value))

    def open(self, epoch: int, offset: int) -> "BatchClaims":
        """The claims of the partition's next batch, which starts at `offset`. Called in offset order."""
        if epoch < self._epoch:
            # A batch of an assignment that has ended never commits.
            return BatchClaims(None, offset)
        if epoch > self._epoch:
            # Such batches may come first.
            self._waiting.clear()
            self._batches.clear()
            self._epoch = epoch
        claims = BatchClaims(self, offset)
        self._batches.append(claims)
        return claims

    def commit(self, epoch: int, offset: int, published: Sequence[bool]) -> None:
        """Commit the batch that starts at `offset`; `published` are the records of it that were published."""
        if epoch == self._epoch and self._batches and self._batches[0].offset == offset:
            self._batches.popleft().commit(published)

    def start(self, pending: PendingVersion) -> Stamp:
        """Add a content in flight, unless a newer version is published: returns that version, else 0."""
        queue = self._waiting.get(pending.key)
        if queue is None:
            newest = self.published.get(pending.key)
            if newest and older(pending.stamp, newest):
                return newest
            self._waiting[pending.key] = [pending]
            return 0
        newer = self.newer(pending)
        if not newer:
            queue.append(pending)
        return newer

    def newer(self, pending: PendingVersion) -> Stamp:
        """The version published by the time this one is up, if this one is older; else 0.

        If it depends on an earlier, undecided one, it becomes contested instead.
        """
        before = self._before(pending)
        if any(other.passes is None for other in before):
            stamps = (self.published.get(pending.key), *(other.stamp for other in before))
            if any(other.withdraws for other in before):
                # The stamp in force then is no newer than one of these, however they are decided.
                stamps = tuple(withdrawn(one, 0) for one in stamps)
            pending.contested = any(older(pending.stamp, one) for one in stamps)
            return 0
        pending.contested = False
        newest = self.newest(pending)
        return newest if older(pending.stamp, newest) else 0

    def newest(self, pending: PendingVersion) -> Stamp:
        """The stamp in force when this one is up; all before it are decided."""
        newest = self.published.get(pending.key)
        for other in self._before(pending):
            if other.passes:
                newest = other.after(newest)
        return newest

    def push(self, pending: PendingVersion) -> None:
        """Add a content in flight, regardless of the published version."""
        self._waiting.setdefault(pending.key, []).append(pending)

    def pull(self, pending: PendingVersion, *, published: bool) -> None:
        """Remove a committed content. It is the first of its id: batches of a partition commit in order."""
        queue = self._waiting.get(pending.key)
        if queue is None or queue[0] is not pending:
            return
        if len(queue) == 1:
            del self._waiting[pending.key]
        else:
            del queue[0]
        if published:
            before = self.published.get(pending.key) if pending.withdraws else 0
            self.published.put(pending.key, pending.after(before))

    def hangs_on(self, pending: PendingVersion) -> "list[BatchClaims]":
        """The earlier batches with undecided versions on which a contested one depends."""
        return [
            other.claims
            for other in self._before(pending)
            if other.passes is None and other.claims is not pending.claims
        ]

    def _before(self, pending: PendingVersion) -> list[PendingVersion]:
        return list(takewhile(lambda other: other is not pending, self._waiting.get(pending.key, ())))


class BatchClaims:
    """The versions that one batch claims to publish. Contents with neither version nor time claim nothing."""

    def __init__(self, versions: PartitionVersions | None, offset: int) -> None:
        """Without `versions` everything passes."""
        self.offset = offset
        self._versions = versions
        # By the index of a record in its batch.
        self.pending: dict[int, PendingVersion] = {}
        self._decided: asyncio.Event | None = None

    def add(self, index: int, content_id: str, given: Stamp) -> Stamp:
        """Claim that the record at `index` is this version of a content, in offset order. Returns the newer version
        that is already published, or 0."""
        if self._versions is None:
            return 0
        pending = PendingVersion(self, hash(content_id), given)
        newer = self._versions.start(pending)
        if not newer:
            self.pending[index] = pending
        return newer

    def withdraw(self, index: int, content_id: str, given: Stamp) -> None:
        """Claim that the record at `index` withdraws a content. It is never stale, whatever the clocks say; a later
        record that is no newer than the withdrawn version is. `withdrawn` needs that version, so `wait` waits for all
        before it.
        """
        if self._versions is not None:
            pending = PendingVersion(self, hash(content_id), given, passes=True, contested=True, withdraws=True)
            self.pending[index] = pending
            self._versions.push(pending)

    def refuse(self, index: int) -> None:
        """Refuse the record at `index`; `newest` is called for it later, so `wait` waits for all before it."""
        pending = self.pending[index]
        pending.passes, pending.contested = False, True

    def newest(self, index: int) -> Stamp:
        """The stamp in force before a refused record or a withdrawal, or 0."""
        return 0 if self._versions is None else self._versions.newest(self.pending[index])

    def withdrawn(self, index: int) -> Stamp:
        """The stamp in force after a withdrawal, or 0."""
        return self.pending[index].after(self.newest(index)) if index in self.pending else 0

    def stamp(self, index: int) -> Stamp:
        """The stamp of a record."""
        return self.pending[index].stamp

    def contested(self, index: int) -> bool:
        """Whether the outcome of a record depends on an earlier, undecided one."""
        return index in self.pending and self.pending[index].contested

    async def wait(self) -> None:
        """Wait for all decisions in earlier batches that records of this one depend on."""
        if self._versions is not None:
            for pending in self.pending.values():
                if pending.contested:
                    for claims in self._versions.hangs_on(pending):
                        await claims._until_decided()

    def decide(self, index: int, *, passes: bool) -> Stamp:
        """Decide, in offset order, whether a record is published: not if it was not tagged, and not if a newer version
        is published, which is returned; else 0."""
        pending = self.pending[index]
        newer = self._versions.newer(pending) if passes and pending.contested and self._versions is not None else 0
        pending.passes = passes and not newer
        return newer

    def close(self) -> None:
        """Note that everything in the batch is decided."""
        if self._decided is not None:
            self._decided.set()

    def commit(self, published: Sequence[bool]) -> None:
        """Commit the batch."""
        if self._versions is not None:
            for index, pending in self.pending.items():
                self._versions.pull(pending, published=published[index])

    async def _until_decided(self) -> None:
        if any(pending.passes is None for pending in self.pending.values()):
            self._decided = self._decided or asyncio.Event()
            await self._decided.wait()
