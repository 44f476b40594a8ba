"""`tagbus check`: one line for each precondition of `tagbus run`."""

import asyncio
import base64
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tagbus.stream.cli.operate import check
from tagbus.stream.config import MemorySettings
from tagbus.stream.encoder.release import RELEASE, default_folder, load_release
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.qdrant import client as connection
from tagbus.stream.memory.qdrant.client import Server
from tagbus.stream.memory.qdrant.collections import CollectionSpec
from tagbus.stream.memory.qdrant.server import ServerStore
from tests.cli.harness import Answer, Cli
from tests.cli.records.test_publish import TOPICS, settings
from tests.conftest import Broker
from tests.memory.qdrant.parts import Kept
from tests.support import Layout

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not answer here never will."""
    monkeypatch.setattr(check, "SECONDS", 3.0)


def verdicts(answer: Answer) -> dict[str, str]:
    """The verdict on each subject."""
    rows = [(line[:8].strip(), line[8:31].strip()) for line in answer.lines]
    assert all(line[31:].strip() for line in answer.lines)
    return {subject: verdict for verdict, subject in rows}


def test_all_is_right_once_the_topics_are_made(kafka: Broker, tagbus: Cli) -> None:
    given = settings(kafka)
    tagbus("topics", "create", settings=given)
    answer = tagbus("check", settings=given)
    assert answer.code == 0
    assert answer.err == ""
    found = verdicts(answer)
    topics = {f"topic {topic}"[:22] for name, topic in given.items() if name.startswith("TOPICS__") and "-" in topic}
    assert {"model", "tagger", "memory", "broker", "broker version"} <= set(found)
    assert len(found) == 5 + len(topics)
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(
    ("wrong", "policy"),
    [("tags", "delete"), ("exemplars", "compact,delete"), ("content", "compact"), ("versions", "delete")],
)
def test_a_cleanup_policy_that_would_lose_records_is_wrong(
    kafka: Broker, tagbus: Cli, topics: Callable[[Mapping[str, Layout]], dict[str, str]], wrong: str, policy: str
) -> None:
    right = dict.fromkeys(("tags", "exemplars", "knowledge", "versions", "releases", "feedback_state"), "compact")
    names = topics({word: (1, {"cleanup.policy": right.get(word, "delete")}) for word in TOPICS if word != wrong})
    names |= topics({wrong: (1, {"cleanup.policy": policy})})
    answer = tagbus("check", settings=settings(kafka, names))
    assert answer.code == 3
    (line,) = (line for line in answer.lines if line.startswith("wrong"))
    assert f"topic {names[wrong]}" in line
    assert f"cleanup.policy is {policy}, expected " in line
    assert answer.one_line() == "tagbus: 1 of these must be fixed before `tagbus run`"


def test_versions_need_as_many_partitions_as_content(
    kafka: Broker, tagbus: Cli, topics: Callable[[Mapping[str, Layout]], dict[str, str]]
) -> None:
    compact = {"cleanup.policy": "compact"}
    names = topics({"content": 3, "tags": (1, compact), "exemplars": (1, compact), "tagged": 1, "dead_letters": 1})
    names |= topics({"feedback": 1})
    names |= topics({"versions": (2, compact)})
    answer = tagbus("check", settings=settings(kafka, names))
    assert answer.code == 3
    (line,) = (line for line in answer.lines if line.startswith("wrong"))
    assert line.endswith(f"2 partitions, expected at least the 3 of {names['content']}")


def test_fewer_partitions_than_the_settings_say_are_named_and_are_no_fault(kafka: Broker, tagbus: Cli) -> None:
    # Given topics that were made with 3 partitions
    given = settings(kafka)
    tagbus("topics", "create", settings={**given, "TOPICS__PARTITIONS": "3"})
    # When the settings say 6, from which the chart derives its most replicas
    answer = tagbus("check", settings={**given, "TOPICS__PARTITIONS": "6"})
    # Then a line says so
    assert answer.code == 0
    (line,) = (line for line in answer.lines if f"topic {given['TOPICS__CONTENT']}" in line)
    assert line.startswith("unsure")
    assert line.endswith("3 partitions, 6 in the settings")


@pytest.mark.parametrize("installed", [True, False])
def test_what_an_export_needs_is_looked_for(
    kafka: Broker, tagbus: Cli, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    given = {**settings(kafka), "OTEL__ENDPOINT": "http://127.0.0.1:4318"}
    tagbus("topics", "create", settings=given)
    if not installed:
        monkeypatch.setitem(sys.modules, "tagbus.stream.telemetry.otlp", None)
        monkeypatch.delattr("tagbus.stream.telemetry.otlp", raising=False)
    answer = tagbus("check", settings=given)
    (line,) = (line for line in answer.lines if line[8:].startswith("telemetry"))
    if installed:
        assert line.endswith("spans and metrics go to http://127.0.0.1:4318")
    else:
        assert line.startswith("wrong")
        assert "`pip install 'tagbus[otel]'` installs it" in line
    assert answer.code == (0 if installed else 3)


class Registry(BaseHTTPRequestHandler):
    """Answers as a schema registry does that wants a password."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Basic " + base64.b64encode(b"worker:secret").decode()
        self.send_response(200 if known and self.path == "/subjects" else 401)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def registry() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_schema_registry_is_asked_where_there_is_one(
    tagbus: Cli, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SECONDS", 0.5)
    login = {"REGISTRY__USER": "worker", "REGISTRY__PASSWORD": "secret"}
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, REGISTRY__URL=registry, settings=login)
    assert verdicts(answer)["schema registry"] == "ok"
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, REGISTRY__URL=registry, settings=login | {"REGISTRY__USER": "x"})
    assert verdicts(answer)["schema registry"] == "wrong"
    assert "401" in answer.out
    assert "secret" not in answer.out + answer.err


def test_a_schema_registry_that_does_not_answer_is_one_line(tagbus: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SECONDS", 0.5)
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, REGISTRY__URL="http://127.0.0.1:1")
    assert verdicts(answer)["schema registry"] == "wrong"
    assert len(answer.lines) == 5


def test_what_a_server_says_moves_no_cursor_and_fills_no_screen() -> None:
    line = check.line_of(check.Finding("ok", "llm model", "evil\x1b]0;owned\x07\x1b[2J\u202e\n" + "m" * 1_000_000))
    assert line.isprintable()
    assert line.startswith("ok      llm model              evil]0;owned[2J mmm")
    assert line.endswith("m…")
    assert len(line) < 2_100


def test_a_missing_topic_is_wrong_and_says_what_makes_it(kafka: Broker, tagbus: Cli) -> None:
    answer = tagbus("check", settings=settings(kafka))
    assert answer.code == 3
    wrong = [line for line in answer.lines if line.startswith("wrong")]
    # Without those for releases, knowledge and the joiner alone a worker does: they are `unsure`.
    assert len(wrong) == len(TOPICS) - 4
    assert all(line.endswith("does not exist; `tagbus topics create` creates it") for line in wrong)


def test_no_broker_is_one_line(tagbus: Cli) -> None:
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE)
    assert answer.code == 3
    assert verdicts(answer) == {"model": "ok", "tagger": "ok", "memory": "ok", "broker": "wrong"}
    assert NOWHERE in answer.lines[-1]


def test_where_a_component_cannot_run_is_one_line(tagbus: Cli) -> None:
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, COMPONENTS__CROSS_ENCODER__KIND="gpu")
    assert verdicts(answer)["model"] == "wrong"
    assert "TAGBUS_COMPONENTS__CROSS_ENCODER__KIND='gpu': Input should be 'in_process' or 'triton'" in answer.lines[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ENCODER__PROVIDERS": "cuda"}, "TAGBUS_ENCODER__PROVIDERS=cuda: cuda: "),
        (
            {"COMPONENTS__LITERAL__ENABLED": "true", "COMPONENTS__LITERAL__LANGUAGES": "en,xx"},
            "TAGBUS_COMPONENTS__LITERAL__LANGUAGES",
        ),
        (
            {"ENCODER__KIND": "triton", "ENCODER__ADDRESS": "127.0.0.1:1", "ENCODER__DEADLINE_SECONDS": "0.5"},
            "127.0.0.1:1",
        ),
    ],
    ids=["no GPU", "unknown language", "no Triton"],
)
def test_what_cannot_be_opened_is_wrong(
    tagbus: Cli, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(check, "SECONDS", 0.5)
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, settings=given)
    assert verdicts(answer)["tagger"] == "wrong"
    assert words in answer.lines[1]


def test_triton_without_its_client_is_wrong(tagbus: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SECONDS", 0.5)
    for module in ("triton", "balance", "client", "endpoint"):
        monkeypatch.delitem(sys.modules, f"tagbus.stream.encoder.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, ENCODER__KIND="triton")
    assert verdicts(answer)["tagger"] == "wrong"
    assert "TAGBUS_ENCODER__KIND=triton needs tritonclient" in answer.lines[1]
    assert "pip install 'tagbus[triton]'" in answer.lines[1]


def test_a_cluster_that_does_not_tell_its_settings_stops_nobody(mock_kafka: MockCluster, tagbus: Cli) -> None:
    for name in ("content", "tags", "exemplars", "tagged", "content.dlq", "content.versions", "feedback"):
        mock_kafka.topic(name)
    answer = tagbus("check", KAFKA__BROKERS=mock_kafka.address)
    assert answer.code == 0
    assert set(verdicts(answer).values()) == {"ok", "unsure"}


def test_a_model_that_is_not_there_is_one_line(tagbus: Cli, tmp_path: Path) -> None:
    shutil.copy(default_folder() / RELEASE, tmp_path)
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, ENCODER__FOLDER=str(tmp_path))
    assert answer.code == 3
    assert answer.lines[0].startswith("wrong   model ")
    assert "expected model.onnx, tokenizer.json, golden.json and release.json" in answer.lines[0]


def test_a_calibration_that_is_not_one_is_one_line(tagbus: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, TAGGER__CALIBRATION=str(tmp_path / "c.json"))
    assert answer.lines[0].startswith("wrong   model ")


def test_each_setting_that_a_collection_was_not_made_with_is_named(
    tagbus: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's in-memory mode says that m is 16 and ef_construct 100, whatever was asked for."""
    client = Kept()
    release = load_release(default_folder())

    def connect(settings: MemorySettings) -> Server:
        return Server(client, "memory", form=settings)

    async def build() -> None:
        for kind in KINDS:
            spec = CollectionSpec("tagbus", release.name, kind, release.dimension)
            store = ServerStore(connect(MemorySettings()), spec)
            state = await store.begin("cluster", kind)
            await store.record(state.model_copy(update={"complete": True}))

    asyncio.run(build())
    monkeypatch.setattr(connection, "connect", connect)
    given = {"MEMORY__KIND": "server", "MEMORY__HNSW_M": "32", "MEMORY__QUANTIZATION": "int8"}
    lines = [line for line in tagbus("check", KAFKA__BROKERS=NOWHERE, settings=given).lines if "collection" in line]
    assert [line.split()[:3] for line in lines[:2]] == [["wrong", "collection", "tags"]] * 2
    assert "memory.hnsw_m is 16, expected 32" in lines[0]
    assert "memory.quantization is none, expected int8" in lines[1]
    assert len(lines) == 2 * len(KINDS)


def test_a_store_that_does_not_answer_is_one_line(tagbus: Cli) -> None:
    given = {"MEMORY__KIND": "server", "MEMORY__URL": "http://127.0.0.1:1", "MEMORY__DEADLINE_SECONDS": "2"}
    answer = tagbus("check", KAFKA__BROKERS=NOWHERE, settings=given)
    assert verdicts(answer)["memory"] == "wrong"
    assert len(answer.lines) == 4
