"""Results that are kept to answer the same content again without the tagger.

The same is: the id, all fields of the content, and the versions of release, calibration and taxonomy. One result an id,
that of the last content that came with it, so that a duplicate never stands for a content that was changed meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from tagbus.stream.bus.flight import Flight, Outgoing
from tagbus.stream.bus.recent import Recent
from tagbus.stream.contract.events import Content, Versions

# Of all values that are kept together.
BYTES = 64_000_000


@dataclass(slots=True, eq=False)
class Entry:
    """A content that came, and its result once there is one. It answers nothing before it is `committed`."""

    epoch: int
    offset: int
    mark: int
    versions: Versions | None = None
    outgoing: Sequence[Outgoing] = ()
    committed: bool = False

    def same(self, other: "Entry") -> bool:
        """Whether the two are of the same content, in the same assignment."""
        return self.mark == other.mark and self.epoch == other.epoch


def fingerprint(content: Content) -> int:
    """All fields of a content but its id, in 64 bits that are keyed anew in each process: two contents of one id are
    taken for the same at odds of 1 to 1.8e19."""
    time = content.time
    return hash(
        (
            content.title,
            content.text,
            content.language,
            content.version,
            # Equal moments of two time zones are published differently.
            None if time is None else (time, time.utcoffset()),
            to_json(content.metadata) if content.metadata else b"",
        )
    )


class Results:
    """The results kept, those that were used last, bounded in number and in bytes. Belongs to the loop thread, but for
    `committed`."""

    def __init__(self, limit: int, size: int = BYTES) -> None:
        """`limit`: contents at most; `size`: bytes of all values together."""
        self._entries: Recent[bytes, Entry] = Recent(limit)
        self._half = size // 2
        # Of what was kept since the older half was forgotten.
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def come(self, key: bytes, content: Content, epoch: int, offset: int, versions: Versions) -> Entry:
        """A content came. The entry is `committed` if it is the answer, else it waits for the content's own result.

        An answer of an earlier assignment does not count: another worker may have published a later content since.
        """
        entry = Entry(epoch, offset, fingerprint(content))
        found = self._entries.get(key)
        if found is not None and found.committed and found.same(entry) and found.versions == versions:
            entry = found
        if self._entries.put(key, entry):
            self._size = 0
        return entry

    def keep(self, key: bytes, entry: Entry, versions: Versions, outgoing: Sequence[Outgoing]) -> None:
        """The result of a content, unless the id came again meanwhile or was withdrawn."""
        if self._entries.get(key) is not entry:
            return
        entry.versions, entry.outgoing = versions, outgoing
        for one in outgoing:
            self._size += len(one.value or b"")
        if self._size > self._half:
            self._entries.turn()
            self._size = 0

    def forget(self, key: bytes) -> None:
        """The content is withdrawn."""
        self._entries.drop(key)

    def committed(self, flight: Flight) -> None:
        """A batch is committed: what is kept of it may answer from now on. From the publish thread."""
        entries = self._entries
        for source, verdict in zip(flight.batch.sources, flight.verdicts or (), strict=False):
            if verdict.outcome != "tagged":
                continue
            entry = entries.get(verdict.outgoing[0].key or b"")
            if entry is not None and entry.offset == source.offset and entry.epoch == flight.batch.epoch:
                entry.committed = entry.versions is not None


def again(outgoing: Sequence[Outgoing], headers: tuple[tuple[str, bytes | None], ...]) -> tuple[Outgoing, ...]:
    """The records of a result once more, with the headers of the record that they answer now."""
    return tuple(Outgoing(one.topic, one.key, one.value, headers) for one in outgoing)
