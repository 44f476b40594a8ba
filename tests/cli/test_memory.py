"""`tagbus memory`: status, verify, rebuild, snapshot, restore, and which of them apply to which kinds of memory."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tagbus.stream.config import MemorySettings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.memory import open_memory
from tagbus.stream.memory.qdrant import client as connection
from tagbus.stream.memory.qdrant.client import Server
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.memory.qdrant.parts import Kept
from tests.support import Layout, produce

RELEASE = load_release(default_folder())
SHARED = {"MEMORY__KIND": "server"}


@pytest.fixture
def given(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], tmp_path: Path) -> dict[str, str]:
    """Three tags on their topic, and a folder of releases."""
    names = topics({"tags": 1, "exemplars": 1, "knowledge": 1, "releases": 1})
    records = [encode_record(Tag(id=f"t{n}", name=f"subject {n}")) for n in range(3)]
    produce(kafka.address, names["tags"], [(one.key, one.value, []) for one in records])
    return {
        "KAFKA__BROKERS": kafka.address,
        "RELEASES__FOLDER": str(tmp_path / "releases"),
        **{f"TOPICS__{word.upper()}": name for word, name in names.items()},
    }


@pytest.fixture
def qdrant(monkeypatch: pytest.MonkeyPatch) -> Kept:
    client = Kept()

    def connect(settings: MemorySettings) -> Server:
        return Server(client, "memory", form=settings)

    monkeypatch.setattr(connection, "connect", connect)
    return client


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.parametrize("command", [["verify"], ["rebuild"], ["restore", "x"]], ids=" ".join)
def test_a_memory_that_workers_fill_themselves_is_refused_by_name(tagbus: Cli, command: list[str], kind: str) -> None:
    answer = tagbus("memory", *command, MEMORY__KIND=kind)
    assert answer.code == 2
    assert f"TAGBUS_MEMORY__KIND={kind}: each worker fills such a memory itself" in answer.one_line()
    assert "expected server" in answer.one_line()


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        (["rebuild"], "embedded", "expected server"),
        (["restore", "x"], "embedded", "expected server"),
        (["verify"], "embedded", "TAGBUS_MEMORY__PATH is not set"),
        (["status"], "embedded", "TAGBUS_MEMORY__PATH is not set"),
        (["status"], "exact", "TAGBUS_RELEASES__FOLDER, the folder for copies of it, is not set"),
        (["snapshot"], "hnsw", "TAGBUS_RELEASES__FOLDER is not set"),
        (["snapshot", "x"], "exact", "expected no FOLDER"),
        (["snapshot"], "server", "expected the FOLDER of the copy"),
        (["restore"], "server", "expected the FOLDER of the copy"),
    ],
)
def test_what_is_missing_is_one_line(tagbus: Cli, command: list[str], kind: str, said: str) -> None:
    answer = tagbus("memory", *command, MEMORY__KIND=kind)
    assert answer.code == 2
    assert said in answer.one_line()


def test_a_memory_on_a_server_is_built_looked_at_and_put_right(
    tagbus: Cli, given: dict[str, str], qdrant: Kept
) -> None:
    given = {**given, **SHARED}
    empty = tagbus("memory", "status", settings=given)
    assert (empty.code, "`tagbus index` builds it" in empty.err) == (3, True)

    assert tagbus("memory", "rebuild", "--log", "error", settings=given).code == 0
    status = tagbus("memory", "status", "--json", settings={**given, "MEMORY__HNSW_M": "32"})
    assert status.code == 0
    tags = json.loads(status.lines[0])
    assert (tags["kind"], tags["points"], tags["complete"], tags["behind"]) == ("tags", 3, True, 0)
    assert tags["differences"] == ["memory.hnsw_m is 16, expected 32"]
    table = tagbus("memory", "status", settings={**given, "MEMORY__HNSW_M": "32"})
    assert "0 offsets" in table.out
    assert "tags: memory.hnsw_m is 16, expected 32; `tagbus memory rebuild` rebuilds it" in table.out

    assert tagbus("memory", "verify", settings=given).code == 0
    asyncio.run(lose(qdrant, "t1"))
    answer = tagbus("memory", "verify", settings=given)
    assert answer.code == 3
    assert answer.lines[0] == "tags       3 keys: 1 missing, 0 stale, 0 retired, 0 foreign"
    assert answer.err.splitlines()[0] == "tags: missing t1"
    assert "`tagbus memory verify --repair`" in answer.err
    repaired = tagbus("memory", "verify", "--repair", settings=given)
    assert (repaired.code, repaired.lines[0].rpartition(", ")[2]) == (0, "repaired")
    assert tagbus("memory", "verify", settings=given).code == 0


async def lose(client: Kept, key: str) -> None:
    memory = await open_memory(MemorySettings(kind="server"), RELEASE.name, RELEASE.dimension)
    await memory.tags.delete([key])


def test_a_memory_in_a_folder_is_put_right(tagbus: Cli, given: dict[str, str], tmp_path: Path) -> None:
    given = {**given, "MEMORY__KIND": "embedded", "MEMORY__PATH": str(tmp_path / "memory")}
    assert tagbus("memory", "verify", settings=given).code == 3
    assert tagbus("memory", "verify", "--repair", settings=given).code == 0
    status = tagbus("memory", "status", "--json", settings=given)
    assert [json.loads(line)["points"] for line in status.lines] == [3, 0, 0]


def test_a_folder_that_a_worker_has_open_is_refused(tagbus: Cli, given: dict[str, str], tmp_path: Path) -> None:
    settings = MemorySettings(kind="embedded", path=tmp_path)
    given = {**given, "MEMORY__KIND": "embedded", "MEMORY__PATH": str(tmp_path)}

    async def look() -> None:
        memory = await open_memory(settings, RELEASE.name, RELEASE.dimension)
        try:
            answer = await asyncio.to_thread(tagbus, "memory", "verify", settings=given)
        finally:
            await memory.close()
        assert answer.code == 2
        assert "is open already" in answer.one_line()

    asyncio.run(look())


def test_a_copy_of_other_topics_is_said(tagbus: Cli, mock_kafka: MockCluster, tmp_path: Path) -> None:
    """Given a folder that two clusters share, the one whose workers do not use the copy says so."""
    given = {"RELEASES__FOLDER": str(tmp_path), "MEMORY__KIND": "exact"}
    with MockCluster() as other:
        for cluster in (mock_kafka, other):
            for name in ("tags", "exemplars", "knowledge"):
                cluster.topic(name, 1)
        assert tagbus("memory", "snapshot", settings=given, KAFKA__BROKERS=other.address).code == 0
        own = tagbus("memory", "status", settings=given, KAFKA__BROKERS=other.address)
    answer = tagbus("memory", "status", "--json", settings=given, KAFKA__BROKERS=mock_kafka.address)
    assert own.code == 0
    assert answer.code == 3
    assert "workers do not use the memory of tags: it is of cluster" in answer.err
    assert json.loads(answer.lines[0])["problem"].startswith("it is of cluster")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tags/points.jsonl", "workers do not use the memory of tags: the store in "),
        ("exemplars", "workers do not use the memory of exemplars: "),
        ("position", "workers do not use the memory of tags: it was built from another topic tags: up to tags:0:999,"),
    ],
)
def test_a_copy_that_cannot_be_used_is_said(
    tagbus: Cli, mock_kafka: MockCluster, tmp_path: Path, what: str, said: str
) -> None:
    for name in ("tags", "exemplars", "knowledge"):
        mock_kafka.topic(name, 1)
    given = {"RELEASES__FOLDER": str(tmp_path), "MEMORY__KIND": "exact", "KAFKA__BROKERS": mock_kafka.address}
    assert tagbus("memory", "snapshot", settings=given).code == 0
    file = tmp_path / RELEASE.name / "memory" / "current.json"
    current = json.loads(file.read_text())
    if what == "position":
        positions = [{**one, "offset": 999} if one["topic"] == "tags" else one for one in current["positions"]]
        file.write_text(json.dumps({**current, "positions": positions}))
    else:
        place = file.parent / current["folder"] / what
        place.rename(place.with_name("elsewhere"))
    answer = tagbus("memory", "status", settings=given)
    assert answer.code == 3
    assert said in answer.err.splitlines()[-1]


class TestOfAnotherInstallation:
    """A memory on a server that was built from other topics than those of the settings."""

    @pytest.fixture
    def other(
        self,
        kafka: Broker,
        given: dict[str, str],
        topics: Callable[[Mapping[str, Layout]], dict[str, str]],
        qdrant: Kept,
    ) -> dict[str, str]:
        """The settings of another installation with five tags, whose memory has the same name on the server."""
        assert qdrant
        names = topics({"tags": 1, "knowledge": 1})
        records = [encode_record(Tag(id=f"other{n}", name=f"subject {n}")) for n in range(5)]
        produce(kafka.address, names["tags"], [(one.key, one.value, []) for one in records])
        return {f"TOPICS__{word.upper()}": name for word, name in names.items()}

    def test_status_says_so(self, tagbus: Cli, given: dict[str, str], other: dict[str, str]) -> None:
        given = {**given, **SHARED}
        assert tagbus("memory", "rebuild", "--log", "error", settings=given).code == 0

        answer = tagbus("memory", "status", settings={**given, **other})
        assert answer.code == 3
        assert "workers do not use the memory of tags: it belongs to cluster" in answer.err

        knowledge = {"TOPICS__KNOWLEDGE": other["TOPICS__KNOWLEDGE"]}
        answer = tagbus("memory", "status", settings={**given, **knowledge})
        assert answer.code == 3
        assert "workers do not use the memory of knowledge: it was built from another topic" in answer.err

    def test_it_is_not_repaired_from_the_wrong_topics(
        self, tagbus: Cli, given: dict[str, str], other: dict[str, str]
    ) -> None:
        given = {**given, **SHARED}
        assert tagbus("memory", "rebuild", "--log", "error", settings=given).code == 0

        answer = tagbus("memory", "verify", "--repair", settings={**given, **other})
        assert answer.code == 6
        assert "give each installation its own TAGBUS_MEMORY__NAMESPACE" in answer.one_line()
        assert tagbus("memory", "verify", settings=given).lines[0].startswith("tags       3 keys: 0 missing")


def test_a_copy_for_workers_is_made_and_looked_at(tagbus: Cli, given: dict[str, str], tmp_path: Path) -> None:
    assert tagbus("memory", "status", settings=given).code == 3
    answer = tagbus("memory", "snapshot", "--log", "error", settings=given)
    assert answer.code == 0
    assert (tmp_path / "releases" / RELEASE.name / "memory" / "current.json").exists()
    status = tagbus("memory", "status", "--json", settings=given)
    assert status.code == 0
    tags = json.loads(status.lines[0])
    assert (tags["points"], tags["behind"]) == (3, 0)
