"""No text of a content or a tag and no secret is in what a command logs, counts or traces, whatever the command.

What a command prints as its result may hold texts where that is its purpose, and never a secret. A command that is not
run here stands in ELSEWHERE with the reason; a new one fails the first test until it is in one of the two.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, generate_latest
from typer._click import Command
from typer.core import TyperCommand, TyperGroup

from tagbus.stream.cli.commands import service_commands
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown
from tagbus.stream.telemetry import otlp, traces
from tagbus.stream.telemetry.logs import JsonFormatter
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.support import wait_until
from tests.telemetry.commands import COMMANDS, ENDS, REFUSED
from tests.telemetry.stage import DONE, SECONDS, SECRET, TAG, TEXT, Service, Stage, staged

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]
pytest.importorskip("qdrant_edge")

# Their results are texts of contents or tags: they were asked for them.
SHOWS = {
    *("tag", "explain", "prompt show", "compare", "exemplars convert", "tags show", "tags diff", "tags export", "tail"),
    *("ping", "replay", "retag", "skip", "release check", "synthesize descriptions", "synthesize exemplars"),
}
TRAINS = "reads a folder that its user names and takes minutes of training; no topic, and no setting that is a secret"
ELSEWHERE = {
    "demo": "reads the packaged examples alone, and starts the services that are here",
    "acceptance": "the same; its report is in tests/acceptance",
    "export": TRAINS,
    "evaluate-models": TRAINS,
    "train auto": "takes minutes of training; over topics it runs in tests/kafka/test_auto.py",
    **{
        f"train {name}": TRAINS
        for name in ("biencoder", "cross-encoder", "gudn", "heads", "labeltree", "ranker", "sft", "whole")
    },
}


@cache
def leaves() -> Mapping[str, TyperCommand]:
    """Every command by its words."""
    found = service_commands()
    for entry in entry_points(group="tagbus.commands"):
        found[entry.name] = entry.load()
    return dict(_leaves(found, ()))


def _leaves(commands: Mapping[str, Command], before: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in commands.items():
        if isinstance(command, TyperGroup):
            yield from _leaves(command.commands, (*before, name))
        elif isinstance(command, TyperCommand):
            yield " ".join((*before, name)), command


def test_every_command_is_here_or_says_why_not() -> None:
    assert leaves().keys() == COMMANDS.keys() | DONE.keys() | ELSEWHERE.keys()
    assert not COMMANDS.keys() & ELSEWHERE.keys()
    assert COMMANDS.keys() >= SHOWS


@pytest.fixture(scope="module")
def stage(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(kafka.address, tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture(scope="module")
def services(stage: Stage) -> Iterator[dict[str, Service]]:
    """All services, each when it has done what is there to do."""
    made: dict[str, Service] = {}
    try:
        for name in DONE:
            made[name] = Service(stage, name)
            made[name].until_done()
        yield made
    finally:
        for one in made.values():
            one.close()


class Logged:
    """Every record that any logger of this process lets out, as text and as JSON."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        plain, form = logging.Formatter("%(name)s %(message)s"), JsonFormatter()

        def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
            self.lines += [plain.format(record), form.format(record)]

        patch.setattr(logging.Logger, "handle", handle)
        patch.setattr(logging.root, "level", logging.DEBUG)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = otlp.provider_of(Settings(), SimpleSpanProcessor(exporter))
    traces.use(otlp.tracer_of(provider), sample=1.0)
    yield exporter
    traces.use(None)
    provider.shutdown()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("services")
def test_no_command_says_a_text_or_a_secret(
    name: str,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spans: InMemorySpanExporter,
) -> None:
    tagbus, logged = Cli(monkeypatch, capsys), Logged(monkeypatch)
    given = {**stage.files, "content": Path(stage.variables["TOPICS__CONTENT"])}
    words = [*name.split(), *(one.format(**given) for one in COMMANDS[name])]
    if any("--log" in parameter.opts for parameter in leaves()[name].params):
        words += ["--log", "debug"]
    answer = tagbus(*words, settings=stage.variables)
    # A busy machine's indexer may be behind for longer than a command waits for it.
    late, until = answer.err, time.monotonic() + SECONDS
    while answer.code == DependencyDown.exit_code and name not in REFUSED and time.monotonic() < until:
        answer = tagbus(*words, settings=stage.variables)
        late += answer.err
    assert answer.code == 0 or (name in REFUSED and answer.code > 1), answer.err
    said = [late, *logged.lines, generate_latest(REGISTRY).decode()]
    said += [span.to_json() for span in spans.get_finished_spans()]
    told = "\n".join(said if name in SHOWS else [*said, answer.out])
    assert [line for line in told.splitlines() if TEXT in line or TAG in line] == []
    assert SECRET not in told + answer.out


@pytest.mark.parametrize("name", DONE)
def test_no_service_says_a_text_or_a_secret(name: str, stage: Stage, services: dict[str, Service]) -> None:
    service = services[name]
    if name in ENDS:
        wait_until(lambda: service.ended, SECONDS, f"the end of {name}")
    metrics = service.metrics()
    assert service.stop() == ENDS.get(name, 0), service.log()[-3000:]
    told = service.log() + metrics
    assert [line for line in told.splitlines() if TEXT in line or TAG in line] == []
    assert SECRET not in told


def test_no_trace_that_was_sent_holds_one(stage: Stage, services: dict[str, Service]) -> None:
    sent = [one.raw for one in stage.told.requests if one.path.endswith(("/traces", "/metrics"))]
    assert any(b"process" in one for one in sent)
    assert not [one for one in sent if any(canary.encode() in one for canary in (TEXT, TAG, SECRET))]
