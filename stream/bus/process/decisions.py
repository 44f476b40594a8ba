"""The joiner's state of one partition of `feedback`: what people decided on its contents.

Batches of a partition are processed in offset order, each on top of the previous one, which may be uncommitted. If they
must be processed again, their changes are rolled back first.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from tagbus.stream.errors import Fatal, shorten
from tagbus.stream.feedback.history import WAITING, History

_NOTHING = History()


@dataclass(slots=True)
class _Uncommitted:
    """A processed, uncommitted batch: its first offset, and the previous histories of the contents that it changed."""

    offset: int
    before: dict[str, bytes | None] = field(default_factory=dict)


@dataclass(slots=True)
class PartitionDecisions:
    """One partition in one assignment (state_topic.StatePartition). Belongs to the loop thread once it is `ready`."""

    ready: bool = False
    lacks: str = ""
    # Histories as serialized on `feedback.state`, by content: a fifth of the memory that objects take.
    _values: dict[str, bytes] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)
    _epoch: int = 0
    _batches: deque[_Uncommitted] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def waiting(self) -> int:
        """The number of contents that wait for their text."""
        return len(self._waiting)

    def learn(self, key: bytes, value: bytes | None) -> None:
        """Take in a record of `feedback.state`."""
        self._set(key.decode(errors="replace"), value)

    def open(self, epoch: int, offset: int) -> "BatchDecisions":
        """The view of the partition's next batch, which starts at `offset`. Called in offset order."""
        if epoch < self._epoch:
            # A batch of an assignment that has ended never commits.
            return BatchDecisions(self, _Uncommitted(offset), {})
        if epoch > self._epoch:
            self._take_back()
            self._epoch = epoch
        batch = _Uncommitted(offset)
        self._batches.append(batch)
        return BatchDecisions(self, batch, None)

    def commit(self, epoch: int, offset: int) -> None:
        """Commit the batch that starts at `offset`."""
        if epoch == self._epoch and self._batches and self._batches[0].offset == offset:
            self._batches.popleft()

    def value(self, content_id: str) -> bytes | None:
        """The serialized history of a content."""
        return self._values.get(content_id)

    def put(self, batch: _Uncommitted, content_id: str, value: bytes | None) -> None:
        """Change the history of a content in a batch."""
        batch.before.setdefault(content_id, self._values.get(content_id))
        self._set(content_id, value)

    def _take_back(self) -> None:
        while self._batches:
            for content_id, value in self._batches.pop().before.items():
                self._set(content_id, value)

    def _set(self, content_id: str, value: bytes | None) -> None:
        self._waiting.discard(content_id)
        if value is None:
            self._values.pop(content_id, None)
            return
        self._values[content_id] = value
        if value.startswith(WAITING):
            self._waiting.add(content_id)


class BatchDecisions:
    """The histories that one batch sees and changes."""

    def __init__(
        self, partition: PartitionDecisions, batch: _Uncommitted, aside: dict[str, bytes | None] | None
    ) -> None:
        """`aside`: takes the changes of a batch that never commits; None: they go to the partition."""
        self._partition = partition
        self._batch = batch
        self._aside = aside

    def get(self, content_id: str) -> History:
        """The history of a content, empty without decisions. Raises Fatal if it is not readable."""
        changed: Mapping[str, bytes | None] = self._aside or {}
        value = changed[content_id] if content_id in changed else self._partition.value(content_id)
        if value is None:
            return _NOTHING
        try:
            return History.model_validate_json(value)
        except ValidationError as error:
            # Continuing without it would take back people's decisions.
            words = f"{error.error_count()} errors, the first: {error.errors(include_url=False)[0]['msg']}"
            raise Fatal(f"feedback.state holds no history of content {shorten(content_id)}: {words}") from None

    def put(self, content_id: str, value: bytes | None) -> None:
        """Change the history of a content; None: forget it."""
        if self._aside is None:
            self._partition.put(self._batch, content_id, value)
        else:
            self._aside[content_id] = value
