"""What can go wrong, and what the process says when it ends.

TagbusError
├── UserError            a mistake of whoever runs the command: an argument, a setting, a file
│   └── TopicMissing     a Kafka topic does not exist
├── Retryable            the same call may succeed later; hold the partitions, lose nothing
│   └── DependencyDown   a broker, an encoder or a store does not answer
├── Poison               this one event can never be tagged; it goes to the dead-letter topic
│   ├── Undecodable      its bytes are not an event
│   ├── InvalidEvent     a field is missing, wrong or too large
│   ├── Untaggable       it fails alone where its neighbours pass, or ends the process
│   ├── Stale            a newer version of this content is published already
│   └── Skipped          an operator set it aside
└── Fatal                the process must end; an orchestrator starts it again
    ├── Fenced           another process took over this transactional.id or this membership
    ├── ReleaseMismatch  the model, the tokenizer or the store is of another release
    ├── MemoryLost       the memory topics can no longer be read from where they were left
    ├── TooMuchPoison    so many events are set aside that it is not the events that are bad
    └── OffsetLost       the committed offset of `content` is no longer on the broker

Exit codes of the `tagbus` command:

| code | class           | meaning |
| ---- | --------------- | ------- |
| 0    |                 | done |
| 1    | (any other)     | a bug: the only case that shows a stack trace |
| 2    | UserError       | a wrong argument, setting or file; one line says which |
| 3    | CheckFailed     | `tagbus check` or `tagbus validate` found something wrong |
| 4    | DependencyDown  | a dependency did not answer before the deadline |
| 5    | Fenced          | another process has taken over |
| 6    | ReleaseMismatch | model, tokenizer or store of another release |
| 7    | MemoryLost      | the memory must be rebuilt |
| 8    | Fatal           | any other fatal error, of Kafka for instance |
| 9    | Poison          | an event that was given on the command line can never be tagged |
| 10   | TooMuchPoison   | more than triage.poison_share of the last contents were set aside: find out why |
| 11   | OffsetLost      | the committed offset is gone from the broker; kafka.out_of_range says what to do |
"""

from dataclasses import dataclass


class TagbusError(Exception):
    """The root of the tree. `exit_code` is what the process ends with when the error reaches the command line."""

    exit_code = 1


class UserError(TagbusError):
    """A mistake of whoever runs the command. The message is one line and says what would be right."""

    exit_code = 2


class TopicMissing(UserError):
    """A Kafka topic does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} is not there; `tagbus topics create` makes it")


class CheckFailed(TagbusError):
    """A check ran to its end and found something wrong; what it found has been printed already."""

    exit_code = 3


class Retryable(TagbusError):
    """The same call may succeed later."""

    exit_code = 4


class DependencyDown(Retryable):
    """A broker, an encoder or a store does not answer."""


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of an event: where, what was found (shortened) and what would be right."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is wrong, expected {self.expected}"


class Poison(TagbusError):
    """An event that can never be tagged.

    `stage` names the step that refused it (decode, encode, recall), `errors` what is wrong with which field.
    """

    exit_code = 9

    def __init__(self, stage: str, errors: tuple[FieldError, ...]) -> None:
        self.stage = stage
        self.errors = errors
        super().__init__("; ".join(str(wrong) for wrong in errors))


class Undecodable(Poison):
    """The bytes are not an event: no JSON, no UTF-8, no CloudEvent."""


class InvalidEvent(Poison):
    """The bytes are JSON, but a field is missing, wrong or too large."""


class Untaggable(Poison):
    """The event is valid and fails alone where its neighbours pass."""


class Stale(Poison):
    """A newer version of this content is published already; this one must not replace it."""


class Skipped(Poison):
    """An operator set it aside with `tagbus skip`."""


class Fatal(TagbusError):
    """The process must end."""

    exit_code = 8


class Fenced(Fatal):
    """Another process took over this transactional.id, or this member's place in the group (KIP-447)."""

    exit_code = 5


class ReleaseMismatch(Fatal):
    """The model, the tokenizer or the store is not of the release that this process runs."""

    exit_code = 6


class MemoryLost(Fatal):
    """The memory topics can no longer be read from where they were left, so the memory must be rebuilt."""

    exit_code = 7


class TooMuchPoison(Fatal):
    """More than `triage.poison_share` of the last contents were set aside: it is not the contents that are bad."""

    exit_code = 10


class OffsetLost(Fatal):
    """The committed offset of `content` is no longer on the broker, and `kafka.out_of_range` says to stop."""

    exit_code = 11


def shorten(value: object, length: int = 60) -> str:
    """A value as an error shows it: its repr, cut to `length` characters, control characters escaped.

    The value is cut before repr, so that a megabyte of text is never copied into a message.
    """
    text = repr(value[: length + 1]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
