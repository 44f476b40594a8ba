"""Traces of batches, and of each traced content, from `poll` to `send`. When off, nothing is recorded.

Names and attributes are those of OpenTelemetry's messaging and GenAI conventions. A batch is a separate trace whose
span `process T` links to the producers' spans; beneath it are `poll T`, the stages and `commit T`. A content whose
producer sent a sampled `traceparent` continues the producer's trace: `process T`, the stages, its calls of the language
model, and `send T`, whose context is the result's `traceparent`. A share of the contents without one is traced,
otel.sample. A traceparent that is not sampled, or arrives while traces are off, is passed on unchanged.

A span contains ids, offsets and counts: never a text, a header or a key.
"""

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Protocol

Headers = tuple[tuple[str, bytes | None], ...]
Attributes = Mapping[str, str | int | float]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
# CloudEvents' extension for distributed tracing.
_NAMES: Final = (TRACEPARENT, "ce_traceparent")
# W3C Trace Context; version ff is invalid, and so are ids of zeros.
_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_STATE_BYTES: Final = 512
_SAMPLED: Final = 1
# The limit of links per batch.
LINKS: Final = 128


@dataclass(frozen=True, slots=True)
class Parent:
    """A producer's span. `trace` and `span` are in hexadecimal; `value` and `state` as received."""

    trace: str
    span: str
    sampled: bool
    value: bytes
    state: bytes | None = None

    @property
    def headers(self) -> Headers:
        """The headers that pass it on."""
        own: Headers = ((TRACEPARENT, self.value),)
        return own if self.state is None else (*own, (TRACESTATE, self.state))


def parent_of(headers: Headers) -> Parent | None:
    """The producer's span in a record's headers; None if there is none, or an invalid one."""
    if not headers:
        return None
    found = dict(headers)
    for name in _NAMES:
        if (value := found.get(name)) is not None and len(value) == 55 and (match := _PARENT.fullmatch(value)):
            state = found.get(TRACESTATE)
            kept = state if state is not None and len(state) <= _STATE_BYTES and state.isascii() else None
            sampled = bool(int(match[3], 16) & _SAMPLED)
            return Parent(match[1].decode(), match[2].decode(), sampled, value, kept)
    return None


@dataclass(slots=True)
class Step:
    """A step of a batch, in nanoseconds of time.time_ns(). `content`: the id of the content that it is about, None: all
    of them. `call`: whether it calls another service."""

    name: str
    start: int
    content: str | None = None
    call: bool = False
    end: int = 0
    failed: str = ""
    attributes: dict[str, str | int | float] = field(default_factory=dict)


class Span(Protocol):
    """An open span."""

    @property
    def parent(self) -> Parent:
        """The parent of its children."""
        ...

    def end(self, at: int) -> None:
        """End it."""
        ...


class Tracer(Protocol):
    """Creates spans and sends them to their destination."""

    def span(
        self,
        name: str,
        kind: str,
        start: int,
        attributes: Attributes,
        parent: Parent | None = None,
        links: Sequence[Parent] = (),
    ) -> Span:
        """Begin a span. `kind`: consumer, producer, client or internal."""
        ...


@dataclass(slots=True)
class _Tracing:
    tracer: Tracer | None = None
    sample: float = 0.0
    group: str = ""


_tracing: Final = _Tracing()
_batch: ContextVar["BatchTrace | None"] = ContextVar("batch", default=None)
_content: ContextVar[str | None] = ContextVar("content", default=None)


def use(tracer: Tracer | None, sample: float = 0.0, group: str = "") -> None:
    """Send spans to this tracer from now on; None: trace nothing."""
    _tracing.tracer, _tracing.sample, _tracing.group = tracer, sample, group


def active() -> bool:
    """Whether traces are on."""
    return _tracing.tracer is not None


class BatchTrace:
    """A traced batch. The poll thread creates it, the loop thread adds steps, the publish thread ends it."""

    def __init__(
        self,
        tracer: Tracer,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        parents: Mapping[int, Parent | None],
        read: int,
    ) -> None:
        """`parents`: of each traced content, by its index; None for one that begins a trace here."""
        self._tracer = tracer
        self._topic = topic
        self._steps: list[Step] = []
        self._common: dict[str, str | int | float] = {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(partition),
            "messaging.consumer.group.name": _tracing.group,
        }
        self._ids: dict[int, str] = {}
        links = [one for one in parents.values() if one is not None][:LINKS]
        whole = {**self._common, "messaging.batch.message_count": len(offsets), "messaging.kafka.offset": offsets[0]}
        self._done = read
        self._ended = False
        self._process = tracer.span(
            f"process {topic}", "consumer", read, {**whole, **_operation("process")}, None, links
        )
        polled = tracer.span(
            f"poll {topic}", "client", read, {**whole, **_operation("receive", "poll")}, self._process.parent, links
        )
        polled.end(time.time_ns())
        self._contents = {
            index: tracer.span(
                f"process {topic}",
                "consumer",
                read,
                {**self._common, **_operation("process"), "messaging.kafka.offset": offsets[index]},
                parent,
                [self._process.parent],
            )
            for index, parent in parents.items()
        }
        self._sends: dict[int, Span] = {}

    @property
    def trace(self) -> str:
        """The batch's own trace, in hexadecimal."""
        return self._process.parent.trace

    def named(self, index: int, content_id: str) -> None:
        """Name the content at an index: steps recorded under its id join its trace."""
        self._ids[index] = content_id

    def headers(self, index: int, topic: str) -> Headers | None:
        """The trace headers of a content's result, from the start of its send; None if it is not traced."""
        span = self._contents.get(index)
        if span is None:
            return None
        named = {"messaging.system": "kafka", "messaging.destination.name": topic, **_operation("send")}
        self._sends[index] = self._tracer.span(f"send {topic}", "producer", time.time_ns(), named, span.parent)
        return self._sends[index].parent.headers

    def add(self, step: Step) -> None:
        """Add a finished step."""
        self._steps.append(step)

    def processed(self) -> None:
        """End processing: emit its steps, for the batch and for each traced content."""
        if self._ended:
            # Processed again without results that Kafka refuses: only the first time counts.
            return
        self._ended = True
        now = self._done = time.time_ns()
        steps, self._steps = self._steps, []
        self._emit(self._process.parent, [one for one in steps if one.content is None])
        for index, span in self._contents.items():
            known = self._ids.get(index)
            self._emit(span.parent, [one for one in steps if one.content is None or one.content == known])
            span.end(now)

    def dropped(self) -> None:
        """End a batch whose partition moved to another worker, which reads it again."""
        self.processed()
        self._sends.clear()
        self._process.end(time.time_ns())

    def published(self) -> None:
        """End a committed batch. The span covers the time since the end of processing."""
        now = time.time_ns()
        for span in self._sends.values():
            span.end(now)
        named = {**self._common, **_operation("settle", "commit")}
        self._tracer.span(f"commit {self._topic}", "client", self._done, named, self._process.parent).end(now)
        self._process.end(now)

    def _emit(self, parent: Parent, steps: Sequence[Step]) -> None:
        """Emit stages beneath a span, and calls beneath their stage."""
        stages = [(one, self._span(one, parent)) for one in steps if not one.call]
        for one in steps:
            if one.call:
                around = [(stage.end - stage.start, span) for stage, span in stages if _within(one, stage)]
                self._span(one, min(around, key=itemgetter(0))[1] if around else parent)

    def _span(self, one: Step, parent: Parent) -> Parent:
        attributes = {**one.attributes, **({"error.type": one.failed} if one.failed else {})}
        span = self._tracer.span(one.name, "client" if one.call else "internal", one.start, attributes, parent)
        span.end(one.end)
        return span.parent


def begin(
    topic: str, partition: int, offsets: Sequence[int], headers: Sequence[Headers], read: float
) -> BatchTrace | None:
    """Begin the trace of a batch that is cut now; `read`: when its first record arrived, of time.monotonic(). None if
    traces are off, or none of its contents is traced."""
    tracer = _tracing.tracer
    if tracer is None:
        return None
    traced: dict[int, Parent | None] = {}
    for index, some in enumerate(headers):
        parent = parent_of(some)
        if parent.sampled if parent is not None else random.random() < _tracing.sample:  # noqa: S311 - not a secret
            traced[index] = parent
    if not traced:
        return None
    since = time.time_ns() - int((time.monotonic() - read) * 1e9)
    return BatchTrace(tracer, topic, partition, offsets, traced, since)


@contextmanager
def within(batch: BatchTrace | None) -> Iterator[None]:
    """Attribute steps inside to this batch."""
    if batch is None:
        yield
        return
    token = _batch.set(batch)
    try:
        yield
    finally:
        _batch.reset(token)
        batch.processed()


@contextmanager
def about(content_id: str) -> Iterator[None]:
    """Attribute calls inside to this content."""
    if _batch.get() is None:
        yield
        return
    token = _content.set(content_id)
    try:
        yield
    finally:
        _content.reset(token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Record a stage of the batch."""
    batch = _batch.get()
    if batch is None:
        yield
        return
    with _timed(batch, Step(name, time.time_ns())):
        yield


@contextmanager
def call(name: str, attributes: Attributes) -> Iterator[dict[str, str | int | float]]:
    """Record a call of another service about the current content; more attributes may be added to the yielded
    mapping."""
    batch = _batch.get()
    if batch is None:
        yield {}
        return
    made = Step(name, time.time_ns(), _content.get(), call=True, attributes=dict(attributes))
    with _timed(batch, made):
        yield made.attributes


@contextmanager
def _timed(batch: BatchTrace, made: Step) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # Only its class: its message may quote a content.
        made.failed = type(error).__name__
        raise
    finally:
        made.end = time.time_ns()
        batch.add(made)


def _within(one: Step, stage: Step) -> bool:
    return stage.start <= one.start <= stage.end


def _operation(kind: str, name: str = "") -> dict[str, str | int | float]:
    return {"messaging.operation.type": kind, "messaging.operation.name": name or kind}
