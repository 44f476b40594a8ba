"""Content versions: which version of each content of a partition is published, and whether a new one is older.

Batches of a partition are processed at once and end in any order, yet each content is treated as if they ended one by
one, in order of offsets. A content in flight counts as published as soon as it is decided that it will be; if that is
still open and matters, the later batch waits for the earlier one. Nothing here waits or looks across partitions.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagbus.stream.bus.process.recent import Recent
from tagbus.stream.errors import FieldError, Stale, shorten

STAGE = "order"

# A stamp is version and time in one integer: 32 to 40 bytes, a tuple takes 120. A part that is missing is 0.
_TIME_BITS = 49
_TIME = (1 << _TIME_BITS) - 1
# Added to Unix milliseconds, so that times before 1970 are positive: the years 1 to 9999 fit.
_SHIFT = 1 << 47

Stamp = int


def stamp(version: int | None, milliseconds: int | None) -> Stamp:
    """Version and time (Unix milliseconds) as one integer; 0 if there is neither.

    Producers may set any time on a record: one out of bounds becomes the nearest bound.
    """
    time = 0 if milliseconds is None else milliseconds + _SHIFT
    if milliseconds is not None and not 0 < time <= _TIME:
        time = min(max(time, 1), _TIME)
    return time if version is None else ((version + 1) << _TIME_BITS) | time


def stamp_of(version: int | None, time: datetime | None) -> Stamp:
    """The stamp of a content."""
    return stamp(version, None if time is None else round(time.timestamp() * 1000))


def version_of(given: Stamp) -> int | None:
    """The version in a stamp."""
    return (given >> _TIME_BITS) - 1 if given >> _TIME_BITS else None


def milliseconds_of(given: Stamp) -> int | None:
    """The time in a stamp."""
    return (given & _TIME) - _SHIFT if given & _TIME else None


def older(given: Stamp, than: Stamp) -> bool:
    """Whether `given` is older: by version if both have one, else by time if both have one, else not."""
    if given > _TIME and than > _TIME:
        return (given >> _TIME_BITS) < (than >> _TIME_BITS)
    time, other = given & _TIME, than & _TIME
    return bool(time and other) and time < other


class _Value(BaseModel):
    """A value on the topic of published versions."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    version: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    time: Annotated[int, Field(ge=1 - _SHIFT, le=_TIME - _SHIFT)] | None = None


def write(given: Stamp) -> bytes:
    """A value for the topic of published versions: version, and time in Unix milliseconds; null if there is none."""
    version, time = (given >> _TIME_BITS) - 1, (given & _TIME) - _SHIFT
    if given <= _TIME:
        return b'{"version":null,"time":%d}' % time
    return b'{"version":%d,"time":%d}' % (version, time) if given & _TIME else b'{"version":%d,"time":null}' % version


def read(value: bytes) -> Stamp:
    """The stamp in a value from the topic; 0 if the value is not ours."""
    try:
        found = _Value.model_validate_json(value)
    except ValidationError:
        return 0
    return stamp(found.version, found.time)


class Published:
    """The published stamp of each id, bounded in number: the oldest are forgotten.

    Keys are Python's hashes of ids: 64 bits, with another key in each process. With a million ids in memory a new one
    collides at odds of 1 to 1.8e13, and nobody outside can provoke it.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: ids at most."""
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
        """Hold at most `limit` ids from now on."""
        self._stamps.resize(limit)


@dataclass(slots=True, eq=False)
class PendingVersion:
    """A content in flight. `passes`: whether it will be published; None: not decided yet."""

    claims: "BatchClaims"
    key: int
    stamp: Stamp
    passes: bool | None = None
    # Whether it depends on an earlier one that is not decided.
    contested: bool = False


@dataclass(slots=True)
class PartitionVersions:
    """One partition in one assignment. Belongs to the loop thread, once it is `ready`: another one fills it before."""

    published: Published
    ready: bool = False
    _epoch: int = 0
    _waiting: dict[int, deque[PendingVersion]] = field(default_factory=dict)
    _batches: deque["BatchClaims"] = field(default_factory=deque)

    def open(self, epoch: int, offset: int) -> "BatchClaims":
        """The claims of the partition's next batch, which starts at `offset`. Called in order of offsets."""
        if epoch < self._epoch:
            # A batch of an assignment that has ended never commits.
            return BatchClaims(None, offset)
        if epoch > self._epoch:
            # Such batches may have come first.
            self._waiting.clear()
            self._batches.clear()
            self._epoch = epoch
        claims = BatchClaims(self, offset)
        self._batches.append(claims)
        return claims

    def commit(self, epoch: int, offset: int, published: Sequence[bool]) -> None:
        """The batch that starts at `offset` is committed; `published` says which of its records are."""
        if epoch == self._epoch and self._batches and self._batches[0].offset == offset:
            self._batches.popleft().commit(published)

    def start(self, pending: PendingVersion) -> Stamp:
        """Add a content in flight, unless a newer version is published: returns that one, else 0."""
        queue = self._waiting.get(pending.key)
        if queue is None:
            newest = self.published.get(pending.key)
            if newest and older(pending.stamp, newest):
                return newest
            self._waiting[pending.key] = deque((pending,))
            return 0
        newer = self.newer(pending)
        if not newer:
            queue.append(pending)
        return newer

    def newer(self, pending: PendingVersion) -> Stamp:
        """The version that is published when the turn of this one comes, if this one is older; else 0.

        If it depends on an earlier one that is not decided, it becomes contested instead.
        """
        before = self._before(pending)
        if any(other.passes is None for other in before):
            stamps = (self.published.get(pending.key), *(other.stamp for other in before))
            pending.contested = any(older(pending.stamp, one) for one in stamps)
            return 0
        pending.contested = False
        newest = self.newest(pending)
        return newest if older(pending.stamp, newest) else 0

    def newest(self, pending: PendingVersion) -> Stamp:
        """The version that is published when the turn of this one comes; all before it are decided."""
        passed = (other.stamp for other in reversed(self._before(pending)) if other.passes)
        return next(passed, self.published.get(pending.key))

    def push(self, pending: PendingVersion) -> None:
        """Add a content in flight, whatever is published."""
        self._waiting.setdefault(pending.key, deque()).append(pending)

    def pull(self, pending: PendingVersion, *, published: bool) -> None:
        """Remove a content that is committed. It is the first of its id: batches of a partition commit in order."""
        queue = self._waiting.get(pending.key)
        if queue is None or queue[0] is not pending:
            return
        queue.popleft()
        if not queue:
            del self._waiting[pending.key]
        if published:
            self.published.put(pending.key, pending.stamp)

    def hangs_on(self, pending: PendingVersion) -> "list[BatchClaims]":
        """The earlier batches with undecided versions on which a contested one depends."""
        return [
            other.claims
            for other in self._before(pending)
            if pending.contested and other.passes is None and other.claims is not pending.claims
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
        """Claim that the record at `index` is this version of a content, in order of offsets. Returns the newer version
        that is already published, or 0."""
        if self._versions is None:
            return 0
        pending = PendingVersion(self, hash(content_id), given)
        newer = self._versions.start(pending)
        if not newer:
            self.pending[index] = pending
        return newer

    def withdraw(self, index: int, content_id: str, given: Stamp) -> None:
        """The record at `index` withdraws a content. It is never stale, whatever the clocks say; older versions that
        come later are."""
        if self._versions is not None:
            self.pending[index] = PendingVersion(self, hash(content_id), given, passes=True)
            self._versions.push(self.pending[index])

    def refuse(self, index: int) -> None:
        """The record at `index` does not pass; `newest` will be asked for it, so `wait` waits for all before it."""
        pending = self.pending[index]
        pending.passes, pending.contested = False, True

    def newest(self, index: int) -> Stamp:
        """The published version of the content of a refused record, or 0."""
        return 0 if self._versions is None else self._versions.newest(self.pending[index])

    def stamp(self, index: int) -> Stamp:
        """The stamp of a record."""
        return self.pending[index].stamp

    def contested(self, index: int) -> bool:
        """Whether the outcome of a record depends on an earlier one that is not decided."""
        return index in self.pending and self.pending[index].contested

    async def wait(self) -> None:
        """Wait until everything is decided in earlier batches on which records of this one depend."""
        if self._versions is not None:
            for pending in self.pending.values():
                for claims in self._versions.hangs_on(pending):
                    await claims._until_decided()

    def decide(self, index: int, *, passes: bool) -> Stamp:
        """Decide, in order of offsets, whether a record is published: not if it was not tagged, and not if a newer
        version is published, which is returned; else 0."""
        pending = self.pending[index]
        newer = self._versions.newer(pending) if passes and pending.contested and self._versions is not None else 0
        pending.passes = passes and not newer
        return newer

    def close(self) -> None:
        """Everything in the batch is decided."""
        if self._decided is not None:
            self._decided.set()

    def commit(self, published: Sequence[bool]) -> None:
        """The batch is committed."""
        if self._versions is not None:
            for index, pending in self.pending.items():
                self._versions.pull(pending, published=published[index])

    async def _until_decided(self) -> None:
        if any(pending.passes is None for pending in self.pending.values()):
            self._decided = self._decided or asyncio.Event()
            await self._decided.wait()


def stale(content_id: str, given: Stamp, newer: Stamp) -> Stale:
    """The error of a content that is older than its published version."""
    by_version = given > _TIME and newer > _TIME
    show = version_of if by_version else _moment
    expected = f"{show(newer)} or newer, as published already for content {shorten(content_id)}"
    return Stale(STAGE, (FieldError("version" if by_version else "time", str(show(given)), expected),))


def _moment(given: Stamp) -> str:
    milliseconds = milliseconds_of(given) or 0
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f"{milliseconds} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
