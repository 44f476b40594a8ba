"""A worker whose contents are traced."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tagbus.stream.config import Settings
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.telemetry import otlp, traces
from tagbus.stream.telemetry.logs import JsonFormatter
from tests.bus.harness import event, running, settings, until_all_out
from tests.bus.taggers import Allergic, Trivial
from tests.support import consume_all, produce, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01".encode()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = otlp.provider_of(Settings(), SimpleSpanProcessor(exporter))
    traces.use(otlp.tracer_of(provider))
    yield exporter
    traces.use(None)
    provider.shutdown()


def test_a_running_worker_sends_what_it_traces_once_it_is_committed(
    mock_kafka: MockCluster, mock_topics: dict[str, str], spans: InMemorySpanExporter
) -> None:
    produce(mock_kafka.address, "content", [(b"a", event("a"), [("traceparent", SAMPLED)]), (b"b", event("b"), [])])
    with running(settings(mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"}), Trivial()):
        until_all_out(mock_kafka.address, mock_topics, 2)
        wait_until(lambda: [one for one in spans.get_finished_spans() if one.name.startswith("commit")], 120)
    found = {f"{one.name}" for one in spans.get_finished_spans()}
    assert {"poll content", "process content", "send tagged", "commit content"} <= found
    results = {one.key(): dict(one.headers() or []) for one in consume_all(mock_kafka.address, mock_topics["tagged"])}
    carried = traces.parent_of(tuple(results[b"a"].items()))
    assert carried is not None
    assert carried.trace == TRACE
    assert "traceparent" not in results[b"b"]


CANARY = "xyzzy-canary"


class Quoting(Allergic):
    """Fails with an error that quotes the content."""

    async def tag(self, contents, until=None):  # type: ignore[no-untyped-def]
        for content in contents:
            if content.id == "bad":
                raise ValueError(f"cannot tag {content.text}")
        return await super().tag(contents, until)


def test_no_text_is_in_the_log_or_a_trace_for_any_outcome(
    mock_kafka: MockCluster, mock_topics: dict[str, str], spans: InMemorySpanExporter
) -> None:
    # Given contents with a canary in their text: a valid one, one that is not JSON, one with a wrong field, one that
    # the tagger fails on with an error that quotes it
    traced = [("traceparent", SAMPLED)]
    values = {
        "good": event("good", CANARY, title=CANARY, metadata={"note": CANARY}),
        "torn": f'{{"id": "torn", "text": "{CANARY}'.encode(),
        "wrong": event("wrong", CANARY, language=CANARY * 10),
        "bad": event("bad", CANARY),
    }
    produce(mock_kafka.address, "content", [(name.encode(), value, traced) for name, value in values.items()])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        given = settings(
            mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"}, triage={"poison_share": 1}
        )
        with running(given, Quoting(lambda _: False)):
            until_all_out(mock_kafka.address, mock_topics, len(values))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    # Then the dead-lettered ones are in the log with content, trace and offset
    aside = {one["content"]: one for one in lines if one["message"].startswith("a content is set aside")}
    assert aside.keys() == {"torn", "wrong", "bad"}
    assert all(one["trace_id"] == TRACE and isinstance(one["offset"], int) for one in aside.values())
    # and no text is anywhere
    assert CANARY not in stream.getvalue()
    assert CANARY not in "".join(one.to_json() for one in spans.get_finished_spans())
