"""OTLP: a local receiver gets spans and metrics, and nothing is sent without an endpoint."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry, Counter, Histogram
from requests.adapters import HTTPAdapter

from tagbus.stream import telemetry
from tagbus.stream.config import OtelSettings, Settings
from tagbus.stream.errors import UserError
from tagbus.stream.local.child import HOST, free_ports, reachable
from tagbus.stream.telemetry import otlp, traces
from tagbus.stream.telemetry.export import exporting
from tests.llm.scripted import Say, serving
from tests.support import wait_until

SECONDS = 120
SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def settings(endpoint: str, **given: object) -> Settings:
    return Settings.model_validate({"otel": {"endpoint": endpoint, "metrics_seconds": 60, **given}})


def trace_a_batch() -> None:
    batch = traces.begin("content", 0, [7], [(("traceparent", SAMPLED),)], time.monotonic())
    assert batch is not None
    with traces.within(batch), traces.step("encode"):
        pass
    batch.published()


def test_a_receiver_gets_spans_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given unwanted addresses and headers in the environment
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    telemetry.ABSTAINED.inc()
    with serving(lambda _: Say(b"")) as server:
        with exporting(settings(server.url, headers={"x-key": "secret"})):
            trace_a_batch()
        sent = {one.path: one for one in server.requests}
    assert sent.keys() == {"/v1/v1/traces", "/v1/v1/metrics"}
    assert all(one.headers["x-key"] == "secret" and "x-other" not in one.headers for one in sent.values())
    spans = ExportTraceServiceRequest.FromString(sent["/v1/v1/traces"].raw)
    found = [span for one in spans.resource_spans for scope in one.scope_spans for span in scope.spans]
    assert {"poll content", "process content", "encode", "commit content"} == {span.name for span in found}
    metrics = ExportMetricsServiceRequest.FromString(sent["/v1/v1/metrics"].raw)
    names = {
        one.name: one for some in metrics.resource_metrics for scope in some.scope_metrics for one in scope.metrics
    }
    assert names["tagbus_abstained_total"].sum.is_monotonic
    assert {"tagbus_stage_seconds", "tagbus_end_to_end_seconds", "tagbus_build_info", "tagbus_ready"} <= names.keys()


def test_without_an_endpoint_nothing_is_traced_or_sent() -> None:
    with exporting(Settings()):
        assert traces.begin("content", 0, [7], [(("traceparent", SAMPLED),)], 0.0) is None


def test_a_collector_that_is_down_holds_up_no_end() -> None:
    started = time.monotonic()
    with exporting(settings("http://127.0.0.1:9", timeout_seconds=1)):
        trace_a_batch()
    assert time.monotonic() - started < 60


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tagbus.stream.telemetry.otlp", None)
    monkeypatch.delattr("tagbus.stream.telemetry.otlp")
    with (
        pytest.raises(UserError, match=r"TAGBUS_OTEL__ENDPOINT=http://collector:4318: .*pip install 'tagbus\[otel\]'"),
        exporting(settings("http://collector:4318")),
    ):
        pass


def test_a_histogram_has_the_counts_of_its_buckets() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("tagbus_x_seconds", "X", ["step"], buckets=(1, 2), registry=registry)
    for value in (0.5, 1.5, 1.7, 9):
        histogram.labels(step="a").observe(value)
    Counter("tagbus_y", "Y", registry=registry).inc(3)
    data = otlp.metrics_data(list(registry.collect()), otlp.resource(Settings()), 1, 2)
    metrics = {one.name: one.data for one in data.resource_metrics[0].scope_metrics[0].metrics}
    (point,) = metrics["tagbus_x_seconds"].data_points
    assert (point.count, point.sum, list(point.bucket_counts), list(point.explicit_bounds)) == (
        4,
        12.7,
        [1, 2, 1],
        [1, 2],
    )
    assert [one.value for one in metrics["tagbus_y_total"].data_points] == [3]


@contextmanager
def collector(log: Path) -> Iterator[str]:
    """A real collector, Rotel, that prints what it receives; yields its address."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)("rotel is not installed")
    agent = Path(found.origin).with_name("rotel-agent")
    http, grpc = (f"{HOST}:{port}" for port in free_ports(2))
    receiver = ("--otlp-http-endpoint", http, "--otlp-grpc-endpoint", grpc)
    printed = ("--debug-log", "traces", "--debug-log", "metrics", "--debug-log-verbosity", "detailed")
    with log.open("w") as out:
        process = subprocess.Popen(
            [agent, "start", *receiver, *printed, "--exporter", "blackhole"], stdout=out, stderr=out
        )
    try:
        wait_until(lambda: reachable(http) or process.poll() is not None, SECONDS, "a collector")
        assert process.poll() is None, log.read_text()[-2000:]
        yield f"http://{http}"
    finally:
        process.terminate()
        process.wait(SECONDS)


def test_a_real_collector_reads_spans_and_metrics(tmp_path: Path) -> None:
    log = tmp_path / "collector.log"
    with collector(log) as endpoint:
        with exporting(settings(endpoint)):
            trace_a_batch()
        wait_until(lambda: "commit content" in log.read_text(), SECONDS, "the spans")
        wait_until(lambda: "tagbus_end_to_end_seconds" in log.read_text(), SECONDS, "the metrics")
    text = log.read_text()
    assert re.search(r"Trace ID\s+: 0af7651916cd43dd8448eb211c80319c", text)
    assert "messaging.kafka.offset" in text


class Seen(HTTPAdapter):
    """Records a request's options instead of sending it."""

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, object] = {}

    def send(self, request: requests.PreparedRequest, **options: object) -> requests.Response:  # type: ignore[override]
        self.options = options
        raise requests.ConnectionError(request.url)


@pytest.mark.parametrize("named", [None, "authorities.pem"])
def test_the_settings_alone_name_the_authorities(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK applies its own variables, on the session and for each request."""
    for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "/elsewhere.pem")
    file = None if named is None else tmp_path / named
    seen, session = Seen(), otlp._session(OtelSettings(endpoint="https://127.0.0.1:9", ca_file=file))
    session.mount("https://", seen)
    session.verify, session.cert = "/elsewhere.pem", "/elsewhere.pem"
    with pytest.raises(requests.ConnectionError):
        session.post("https://127.0.0.1:9/v1/traces", data=b"")
    assert (seen.options["verify"], seen.options["cert"]) == (True if file is None else str(file), None)
