"""Results that are kept to answer the same content again without the tagger.

The same is: the id, all fields of the content, and the versions of release, calibration and taxonomy. One result an id,
that of the last content that came with it, so that a duplicate never stands for a content that was changed meanwhile.
"""

from collections.abc import Iterable, Sequence

from pydantic_core import to_json

from tagbus.stream.bus.flight import Kept, Outgoing, Verdict
from tagbus.stream.bus.recent import Recent
from tagbus.stream.contract.events import Content, Versions

# Of all values that are kept together.
BYTES = 64_000_000


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
    """The results kept, those that were used last, bounded in number and in bytes. Belongs to the loop thread."""

    def __init__(self, limit: int, size: int = BYTES) -> None:
        """`limit`: contents at most; `size`: bytes of all values together."""
        self._kept: Recent[str, Kept] = Recent(limit)
        self._half = size // 2
        # Of what was kept since the older half was forgotten.
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def come(self, content: Content, epoch: int, versions: Versions) -> Kept:
        """A content came. What is returned is `committed` if it is the answer, else it waits for the content's own
        result.

        An answer of an earlier assignment does not count: another worker may have published a later content since.
        """
        mark = fingerprint(content)
        kept = self._kept.get(content.id)
        if kept is None or not kept.committed or (kept.mark, kept.epoch, kept.versions) != (mark, epoch, versions):
            kept = Kept(epoch, mark)
        if self._kept.put(content.id, kept):
            self._size = 0
        return kept

    def keep(self, content_id: str, kept: Kept, versions: Versions, outgoing: Sequence[Outgoing]) -> None:
        """The result of a content, unless the id came again meanwhile or was withdrawn."""
        if self._kept.get(content_id) is not kept:
            return
        kept.versions, kept.outgoing = versions, outgoing
        for one in outgoing:
            self._size += len(one.value or b"")
        if self._size > self._half:
            self._kept.turn()
            self._size = 0

    def forget(self, content_id: str) -> None:
        """The content is withdrawn."""
        self._kept.drop(content_id)


def committed(verdicts: Iterable[Verdict]) -> None:
    """A batch is committed: what is kept of it may answer from now on. From the publish thread."""
    for verdict in verdicts:
        if verdict.kept is not None:
            verdict.kept.committed = verdict.kept.versions is not None


def again(outgoing: Sequence[Outgoing], headers: tuple[tuple[str, bytes | None], ...]) -> tuple[Outgoing, ...]:
    """The records of a result once more, with the headers of the record that they answer now."""
    return tuple(Outgoing(one.topic, one.key, one.value, headers) for one in outgoing)
