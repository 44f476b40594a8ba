"""OTLP over HTTP: export spans and metrics to a collector. The only module that imports opentelemetry, itself imported
only if `otel.endpoint` is set.

The SDK's own environment variables (OTEL_EXPORTER_OTLP_ENDPOINT and others) are ignored: the settings of tagbus alone
decide what is sent and where. The metrics are those of Prometheus, read from its registry.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric as Family

from tagbus.stream.config import Settings
from tagbus.stream.config.telemetry import OtelSettings
from tagbus.stream.telemetry import traces
from tagbus.stream.telemetry.traces import Attributes, Parent, Span

log = logging.getLogger(__name__)

SCOPE = "tagbus"
# The limit of waiting at the end; a collector that is down must not hold it up.
STOP_SECONDS = 5.0
# Headers besides those of the settings.
_HEADERS = frozenset(
    {"content-type", "content-encoding", "content-length", "user-agent", "accept", "accept-encoding", "connection"}
)
_KINDS = {
    "consumer": SpanKind.CONSUMER,
    "producer": SpanKind.PRODUCER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class OtelSpan:
    """A span of the SDK (`traces.Span`)."""

    span: trace.Span

    @property
    def parent(self) -> Parent:
        """See `traces.Span`."""
        context = self.span.get_span_context()
        own, of = f"{context.span_id:016x}", f"{context.trace_id:032x}"
        state = context.trace_state.to_header() if context.trace_state else ""
        return Parent(of, own, True, f"00-{of}-{own}-01".encode(), state.encode() or None)

    def end(self, at: int) -> None:
        """See `traces.Span`."""
        self.span.end(at)


@dataclass(frozen=True, slots=True)
class OtelTracer:
    """The SDK's tracer (`traces.Tracer`)."""

    tracer: trace.Tracer

    def span(
        self,
        name: str,
        kind: str,
        start: int,
        attributes: Attributes,
        parent: Parent | None = None,
        links: Sequence[Parent] = (),
    ) -> Span:
        """See `traces.Tracer`."""
        context = trace.set_span_in_context(
            trace.INVALID_SPAN if parent is None else NonRecordingSpan(_context(parent))
        )
        made = self.tracer.start_span(
            name, context, _KINDS[kind], dict(attributes), [Link(_context(one)) for one in links], start
        )
        return OtelSpan(made)


def _context(parent: Parent) -> SpanContext:
    state = TraceState.from_header([parent.state.decode()]) if parent.state else TraceState()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(
        int(parent.trace, 16), int(parent.span, 16), is_remote=True, trace_flags=flags, trace_state=state
    )


def resource(settings: Settings) -> Resource:
    """The resource: attributes of this process, none of its machine."""
    return Resource({"service.name": "tagbus", "service.instance.id": settings.kafka.instance})


def tracer_of(provider: TracerProvider) -> OtelTracer:
    """The tracer of a provider."""
    return OtelTracer(provider.get_tracer(SCOPE))


def provider_of(settings: Settings, processor: SpanProcessor) -> TracerProvider:
    """A provider that sends spans to a processor. Sampling is decided before (traces.begin)."""
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource(settings), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def metrics_data(families: Sequence[Family], whose: Resource, since: int, now: int) -> MetricsData:
    """Prometheus' families in OTLP's form; times in nanoseconds."""
    scope = InstrumentationScope(SCOPE)
    found = [metric for family in families if (metric := _metric(family, since, now)) is not None]
    return MetricsData([ResourceMetrics(whose, [ScopeMetrics(scope, found, "")], "")])


def _metric(family: Family, since: int, now: int) -> Metric | None:
    cumulative = AggregationTemporality.CUMULATIVE
    match family.type:
        case "counter":
            points = [
                _number(one.labels, one.value, since, now) for one in family.samples if one.name.endswith("_total")
            ]
            return Metric(f"{family.name}_total", family.documentation, "", Sum(points, cumulative, is_monotonic=True))
        case "gauge" | "info":
            points = [_number(one.labels, one.value, since, now) for one in family.samples]
            name = family.name + ("_info" if family.type == "info" else "")
            return Metric(name, family.documentation, "", Gauge(points))
        case "histogram":
            return Metric(family.name, family.documentation, "", Histogram(_histograms(family, since, now), cumulative))
    return None


def _number(labels: dict[str, str], value: float, since: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(labels, since, now, value)


def _histograms(family: Family, since: int, now: int) -> list[HistogramDataPoint]:
    bounds: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for one in family.samples:
        labels = tuple(sorted((name, value) for name, value in one.labels.items() if name != "le"))
        if one.name.endswith("_bucket"):
            bounds.setdefault(labels, []).append((float(one.labels["le"]), one.value))
        elif one.name.endswith("_sum"):
            sums[labels] = one.value
    points = []
    for labels, some in bounds.items():
        counts = [int(after - before) for (_, before), (_, after) in zip([(0.0, 0.0), *some], some, strict=False)]
        edges = [edge for edge, _ in some if edge != float("inf")]
        total = int(some[-1][1])
        # Minimum and maximum are unknown.
        points.append(
            HistogramDataPoint(
                dict(labels), since, now, total, sums.get(labels, 0.0), counts, edges, float("nan"), float("nan")
            )
        )
    return points


class MetricsExport:
    """Sends the metrics every few seconds, on a separate thread."""

    def __init__(self, seconds: float, send: Callable[[MetricsData], object], whose: Resource) -> None:
        self._seconds = seconds
        self._send = send
        self._whose = whose
        self._since = time.time_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send a last time, and end."""
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._export()
        self._export()

    def _export(self) -> None:
        families = [one for one in REGISTRY.collect() if one.name.startswith("tagbus_")]
        try:
            self._send(metrics_data(families, self._whose, self._since, time.time_ns()))
        except Exception as error:
            # A collector that is down must not disturb the service.
            log.warning("otlp: the metrics were not sent: error=%s", type(error).__name__)


@contextmanager
def exporting(settings: Settings) -> Iterator[None]:
    """Send spans and metrics to the endpoint of the settings while inside."""
    otel = settings.otel
    processor = BatchSpanProcessor(_spans(otel))
    provider = provider_of(settings, processor)
    traces.use(tracer_of(provider), otel.sample, settings.kafka.group)
    metrics = None
    if otel.metrics_seconds:
        exporter = OTLPMetricExporter(
            f"{otel.endpoint}/v1/metrics",
            headers=_headers(otel),
            timeout=otel.timeout_seconds,
            session=_session(otel),
        )
        metrics = MetricsExport(otel.metrics_seconds, exporter.export, resource(settings))
    # It would log a producer's invalid `tracestate` verbatim.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
    log.info("otlp: spans and metrics go to %s", otel.endpoint)
    try:
        yield
    finally:
        traces.use(None)
        if metrics is not None:
            metrics.stop()
        # Send as much of the rest as the time limit allows.
        ending = threading.Thread(target=provider.shutdown, name="otlp-end", daemon=True)
        ending.start()
        ending.join(STOP_SECONDS)


def _spans(otel: OtelSettings) -> SpanExporter:
    return OTLPSpanExporter(
        f"{otel.endpoint}/v1/traces", headers=_headers(otel), timeout=otel.timeout_seconds, session=_session(otel)
    )


class _Session(requests.Session):
    """A session that ignores the environment's proxy, password file and headers, and follows no redirect, which might
    lead anywhere."""

    def __init__(self, headers: frozenset[str], authorities: Path | None) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = 0
        self._kept = _HEADERS | headers
        self._verify: str | bool = True if authorities is None else str(authorities)

    def send(self, request: requests.PreparedRequest, **options: object) -> requests.Response:
        """See requests. Undoes the SDK's use of OTEL_EXPORTER_OTLP_HEADERS, and of authorities and a certificate from
        other variables."""
        options |= {"verify": self._verify, "cert": None}
        for name in [name for name in request.headers if name.lower() not in self._kept]:
            del request.headers[name]
        return super().send(request, **options)


def _session(otel: OtelSettings) -> requests.Session:
    return _Session(frozenset(name.lower() for name in otel.headers), otel.ca_file)


def _headers(otel: OtelSettings) -> dict[str, str]:
    given = {name: secret.get_secret_value() for name, secret in otel.headers.items()}
    return {"user-agent": "tagbus", **given}
