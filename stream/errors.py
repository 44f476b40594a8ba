"""The exception tree, and the exit codes of the process.

TagbusError
├── UserError            a user's mistake: an argument, a setting, a file
│   └── TopicMissing     a Kafka topic does not exist
├── Retryable            the same call may succeed later; keep the partitions, lose nothing
│   ├── DependencyDown   a broker, an encoder or a store does not answer
│   │   └── Overloaded   it answers too slowly, or rejects the size or number of requests: send less
│   ├── TopicRecreated   a Kafka topic was deleted and created again: a new process reads it
│   └── Withheld         a call that was not made: its budget is spent, or its server keeps failing
├── Poison               this one event can never be tagged; it goes to the dead-letter topic
│   ├── Undecodable      its bytes are not an event
│   ├── InvalidEvent     a field is missing, wrong or too large
│   ├── Untaggable       it fails alone where its neighbours pass, or crashes the process
│   ├── Stale            a newer version of this content is already published
│   └── Skipped          an operator dead-lettered it
└── Fatal                the process must end; an orchestrator restarts it
    ├── Fenced           another process took over this transactional.id or this membership
    ├── ReleaseMismatch  the model, the tokenizer or the store is of another release
    ├── MemoryLost       the memory topics can no longer be read from the last position
    ├── TooMuchPoison    so many events are dead-lettered that the events are not the cause
    └── OffsetLost       the committed offset of `content` is no longer on the broker

Exit codes of the `tagbus` command:

| code | class           | meaning |
| ---- | --------------- | ------- |
| 0    |                 | done |
| 1    | (any other)     | a bug: the only case with a stack trace |
| 2    | UserError       | a wrong argument, setting or file, or output that is closed or full; one line says which |
| 3    | CheckFailed     | `tagbus check` or `tagbus validate` found something wrong |
| 4    | Retryable       | a dependency did not answer before the deadline, or a topic was created again: start again |
| 5    | Fenced          | another process has taken over |
| 6    | ReleaseMismatch | model, tokenizer or store of another release |
| 7    | MemoryLost      | the memory must be rebuilt |
| 8    | Fatal           | any other fatal error, of Kafka for instance |
| 9    | Poison          | an event given on the command line can never be tagged |
| 10   | TooMuchPoison   | more than triage.poison_share of recent contents were dead-lettered: find the cause |
| 11   | OffsetLost      | the committed offset is no longer on the broker; kafka.out_of_range decides what to do |
"""

import errno
import os
import resource
from dataclasses import dataclass


def _out_of_descriptors() -> str:
    """The end of a message where this process can open no file; empty otherwise."""
    try:
        os.close(os.open(os.curdir, os.O_RDONLY))
    except OSError as error:
        if error.errno == errno.EMFILE:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f" (this process has used up its {limit} file descriptors: raise the limit, ulimit -n)"
    return ""


class TagbusError(Exception):
    """The root of the tree. `exit_code` is the exit code of the process if the error reaches the command line."""

    exit_code = 1


class UserError(TagbusError):
    """A user's mistake. The message is one line and says what is expected."""

    exit_code = 2


class TopicMissing(UserError):
    """A Kafka topic does not exist."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} does not exist; `tagbus topics create` creates it")


class CheckFailed(TagbusError):
    """A check completed and found problems, which are already printed."""

    exit_code = 3


class Retryable(TagbusError):
    """The same call may succeed later."""

    exit_code = 4


class DependencyDown(Retryable):
    """A broker, an encoder or a store does not answer.

    The message says so where this process has no file descriptor left: then no connection can be opened.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message + _out_of_descriptors())


class Overloaded(DependencyDown):
    """A dependency answers too slowly, or rejects the size or number of requests: a smaller one may succeed.

    `retry_after` is the wait that it requested, in seconds; None if it named none.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class TopicRecreated(Retryable):
    """A Kafka topic was deleted and created again, and the client in use cannot read or write the new one."""

    def __init__(self, topic: str, consequence: str) -> None:
        super().__init__(f"topic {topic} was deleted and created again: {consequence}; a restart does")


class Withheld(Retryable):
    """A call was not made. `reason` is a short word, as in results: `budget`, `breaker`, `deadline`."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class FieldError:
    """One invalid field of an event: its name, its value (shortened) and the expected value."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: {self.value} is wrong, expected {self.expected}"


class Poison(TagbusError):
    """An event that can never be tagged.

    `stage` names the step that rejected it (decode, encode, recall), `errors` the invalid fields.
    """

    exit_code = 9

    def __init__(self, stage: str, errors: tuple[FieldError, ...]) -> None:
        self.stage = stage
        self.errors = errors
        super().__init__("; ".join(str(wrong) for wrong in errors))


class Undecodable(Poison):
    """The bytes are not an event: not JSON, not UTF-8 or not a CloudEvent."""


class InvalidEvent(Poison):
    """The bytes are JSON, but a field is missing, wrong or too large."""


class Untaggable(Poison):
    """The event is valid, but fails alone where its neighbours pass, or crashes the process."""


class Stale(Poison):
    """A newer version of this content is already published; this one must not replace it."""


class Skipped(Poison):
    """An operator dead-lettered it with `tagbus skip`."""


class Fatal(TagbusError):
    """The process must end."""

    exit_code = 8


class Fenced(Fatal):
    """Another process took over this transactional.id or this group membership (KIP-447)."""

    exit_code = 5


class ReleaseMismatch(Fatal):
    """The model, the tokenizer or the store is not of the release that this process runs."""

    exit_code = 6


class MemoryLost(Fatal):
    """The memory topics can no longer be read from the last position, so the memory must be rebuilt."""

    exit_code = 7


class TooMuchPoison(Fatal):
    """More than `triage.poison_share` of recent contents were dead-lettered: the contents are not the cause."""

    exit_code = 10


class OffsetLost(Fatal):
    """The committed offset of `content` is no longer on the broker, and `kafka.out_of_range` is `stop`."""

    exit_code = 11


def shorten(value: object, length: int = 60) -> str:
    """A value for error messages: its repr, cut to `length` characters, control characters escaped.

    The value is cut before repr, so that a megabyte of text is never copied into a message.
    """
    text = repr(value[: length + 1]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
