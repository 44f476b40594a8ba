"""Traces: from the producer's `traceparent` through every stage to the send, and nothing when off."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tagbus.stream.app import assemble, filling
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.processor import Batch, RecordOutcome, Source
from tagbus.stream.config import CascadeSettings, LlmSettings, Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Content, Tag, TaggedContent
from tagbus.stream.errors import Untaggable
from tagbus.stream.tagger import Failure
from tagbus.stream.telemetry import otlp, traces
from tests.bus.harness import event
from tests.bus.taggers import Trivial
from tests.llm import answers
from tests.llm.scripted import routed, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
UNSAMPLED = f"00-{TRACE}-{SPAN}-00".encode()
CANARY = "xyzzy-canary"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """All spans of this process, none of contents without a traceparent."""
    exporter = InMemorySpanExporter()
    provider = otlp.provider_of(Settings(), SimpleSpanProcessor(exporter))
    traces.use(otlp.tracer_of(provider), sample=0.0, group="tagbus")
    yield exporter
    traces.use(None)
    provider.shutdown()


def sources(*values: tuple[bytes, tuple[tuple[str, bytes | None], ...]]) -> tuple[Source, ...]:
    return tuple(
        Source("content", 3, 40 + at, Record(None, value, headers)) for at, (value, headers) in enumerate(values)
    )


def batch_of(given: tuple[Source, ...]) -> Batch:
    trace = traces.begin("content", 3, [one.offset for one in given], [one.record.headers for one in given], 0.0)
    return Batch(("content", 3), 1, given, 0, 0.0, trace=trace)


async def processed(processor: TagProcessor, batch: Batch) -> list[RecordOutcome]:
    with traces.within(batch.trace):
        return await processor.process(batch, lambda _: None)


def header(outcome: RecordOutcome, name: str) -> bytes | None:
    return dict(outcome.outgoing[0].headers).get(name)


def beneath(spans: list[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    return [one for one in spans if one.parent is not None and one.parent.span_id == parent.context.span_id]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00-abc-def-01",
        b"ff-" + SAMPLED[3:],
        SAMPLED.upper(),
        b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01",
        b"00-" + TRACE.encode() + b"-" + b"0" * 16 + b"-01",
        SAMPLED + b"\n",
        b"\xff" * 55,
    ],
)
def test_an_invalid_traceparent_is_ignored(value: bytes) -> None:
    assert traces.parent_of((("traceparent", value),)) is None


def test_a_traceparent_is_read_from_its_header_or_from_that_of_cloudevents() -> None:
    for name in ("traceparent", "ce_traceparent"):
        parent = traces.parent_of(((name, SAMPLED), ("tracestate", b"a=1")))
        assert parent is not None
        assert (parent.trace, parent.span, parent.sampled) == (TRACE, SPAN, True)
        assert parent.headers == (("traceparent", SAMPLED), ("tracestate", b"a=1"))


def test_when_off_nothing_is_traced_and_the_producers_context_is_passed_on() -> None:
    batch = batch_of(sources((event("a"), (("traceparent", SAMPLED),)), (event("b"), ())))
    assert batch.trace is None
    outcomes = asyncio.run(processed(TagProcessor(Settings(), Trivial()), batch))
    assert [header(one, "traceparent") for one in outcomes] == [SAMPLED, None]


def test_what_the_producer_does_not_sample_is_not_traced(spans: InMemorySpanExporter) -> None:
    batch = batch_of(sources((event("a"), (("traceparent", UNSAMPLED),))))
    assert batch.trace is None
    (outcome,) = asyncio.run(processed(TagProcessor(Settings(), Trivial()), batch))
    assert header(outcome, "traceparent") == UNSAMPLED
    assert spans.get_finished_spans() == ()


def test_of_contents_without_a_context_a_share_begins_a_trace(spans: InMemorySpanExporter) -> None:
    tracing = traces._tracing.tracer
    traces.use(tracing, sample=1.0)
    batch = batch_of(sources((event("a"), ())))
    (outcome,) = asyncio.run(processed(TagProcessor(Settings(), Trivial()), batch))
    assert traces.parent_of(outcome.outgoing[0].headers) is not None


@asynccontextmanager
async def tagging(url: str) -> Any:
    """The whole pipeline with a judge at that server, which is asked about every content."""
    llm = LlmSettings(url=url, model="test-model", watch_seconds=0, candidates=4)
    async with assemble.in_process(Settings(llm=llm, cascade=CascadeSettings(control=1.0))) as stack:
        tags = [Tag(id=word, name=word) for word in ("bees", "honey", "cats")]
        await filling.fill(stack.projection(), {"tags": tags}, lambda _: None)
        yield Whole(stack.tagger())


class Whole(Trivial):
    """A tagger for the bus."""

    def __init__(self, tagger: Any) -> None:
        super().__init__()
        self.tag = tagger.tag  # type: ignore[method-assign]


async def test_a_content_is_traced_from_its_producer_through_every_stage_to_its_sending(
    spans: InMemorySpanExporter,
) -> None:
    # Given a batch of two contents that their producers trace, in two traces, and one that is not traced
    other = SAMPLED.replace(b"0af7", b"1af7")
    values = sources(
        (event("a", f"bees and honey {CANARY}"), (("traceparent", SAMPLED), ("tracestate", b"vendor=1"))),
        (event("b", f"cats {CANARY}"), (("traceparent", other),)),
        (event("c", "bees"), ()),
    )
    batch = batch_of(values)
    assert batch.trace is not None
    with serving(routed(decisions=answers.openai_decisions(), models=answers.models("test-model"))) as server:
        async with tagging(server.url) as tagger:
            outcomes = await processed(TagProcessor(Settings(), tagger), batch)
    batch.trace.published()

    # Then the first content's trace is the producer's
    found = list(spans.get_finished_spans())
    mine = [one for one in found if f"{one.context.trace_id:032x}" == TRACE]
    (process,) = [one for one in mine if one.name == "process content"]
    assert process.parent is not None
    assert f"{process.parent.span_id:016x}" == SPAN
    attributes = dict(process.attributes or {})
    assert attributes["messaging.system"] == "kafka"
    assert attributes["messaging.kafka.offset"] == 40
    assert attributes["messaging.operation.type"] == "process"
    stages = [one.name for one in beneath(mine, process)]
    for stage in ("decode", "prepare", "encode", "recall", "rank", "judge", "select", "calibrate", "serialize"):
        assert stage in stages
    # and the call of the language model is beneath the stage that made it, and is only about this content
    (judge,) = [one for one in beneath(mine, process) if one.name == "judge"]
    calls = beneath(mine, judge)
    assert 0 < len(calls) < len([one for one in server.requests if one.method == "POST"])
    said = next(dict(one.attributes or {}) for one in calls if "gen_ai.response.model" in (one.attributes or {}))
    assert said["gen_ai.request.model"] == "test-model"
    assert said["gen_ai.operation.name"] == "decisions"
    assert isinstance(said["gen_ai.usage.input_tokens"], int)
    # and the result carries its last span, the send
    (send,) = [one for one in mine if one.name == "send tagged"]
    assert send.parent is not None
    assert send.parent.span_id == process.context.span_id
    carried = traces.parent_of(outcomes[0].outgoing[0].headers)
    assert carried is not None
    assert (carried.trace, carried.span) == (TRACE, f"{send.context.span_id:016x}")
    assert carried.state == b"vendor=1"
    assert header(outcomes[2], "traceparent") is None

    # The batch is a separate trace that links to both producers
    (whole,) = [one for one in found if one.name == "process content" and one.parent is None]
    assert {f"{link.context.span_id:016x}" for link in whole.links} == {SPAN}
    assert len(whole.links) == 2
    assert dict(whole.attributes or {})["messaging.batch.message_count"] == 3
    names = {one.name for one in beneath(found, whole)}
    assert {"poll content", "commit content", "judge"} <= names
    assert CANARY not in "".join(one.to_json() for one in found)


def test_a_stage_that_fails_is_named_by_the_class_of_its_error_alone(spans: InMemorySpanExporter) -> None:
    batch = batch_of(sources((event("a"), (("traceparent", SAMPLED),))))

    async def fails() -> None:
        with traces.within(batch.trace), traces.step("recall"):
            raise ValueError(CANARY)

    with pytest.raises(ValueError, match=CANARY):
        asyncio.run(fails())
    found = [one for one in spans.get_finished_spans() if one.name == "recall"]
    assert found
    assert all(dict(one.attributes or {})["error.type"] == "ValueError" for one in found)
    assert CANARY not in "".join(one.to_json() for one in found)


def test_calls_for_a_content_that_is_set_aside_are_of_its_trace(spans: InMemorySpanExporter) -> None:
    class Refuses(Trivial):
        async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
            with traces.about(contents[0].id), traces.step("call"):
                pass
            results = await super().tag(contents)
            # Known-good contents pass: otherwise the fault would not be in the content.
            return [Failure("a", Untaggable("no")) if one.id == "a" else one for one in results]

    batch = batch_of(sources((event("a"), (("traceparent", SAMPLED),))))
    asyncio.run(processed(TagProcessor(Settings(), Refuses()), batch))
    (content,) = [one for one in spans.get_finished_spans() if one.parent and one.parent.span_id == int(SPAN, 16)]
    assert "call" in [one.name for one in beneath(list(spans.get_finished_spans()), content)]


def test_a_batch_that_another_worker_reads_again_leaves_no_span_without_a_parent(spans: InMemorySpanExporter) -> None:
    batch = batch_of(sources((event("a"), (("traceparent", SAMPLED),))))
    assert batch.trace is not None
    batch.trace.dropped()
    found = list(spans.get_finished_spans())
    known = {one.context.span_id for one in found} | {int(SPAN, 16)}
    assert found
    assert {one.parent.span_id for one in found if one.parent is not None} <= known
