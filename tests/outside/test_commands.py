"""Nothing calls home: under strace no command writes outside the folders that it was given, or looks anything up.

Libraries come with habits of their own: ONNX Runtime keeps a device id in the home directory and reports to its vendor,
matplotlib keeps a list of fonts there.
"""

import os
import signal
from pathlib import Path

import pytest

from tagbus.stream.app.components import packaged
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.local.child import free_ports
from tagbus.stream.local.mock import MockCluster
from tests.cli.harness import Slice, cut, write
from tests.outside.place import Place, children, run
from tests.outside.tracing import strace
from tests.support import consume_all, get, produce, wait_until


@pytest.fixture(scope="module", autouse=True)
def _there_is_strace() -> None:
    strace()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Slice:
    """So few that a command is done with them as soon as it has started."""
    folder = tmp_path_factory.mktemp("few")
    whole = cut(folder)
    part = Slice(whole.tags[:40], whole.exemplars[:60], whole.contents[:15], folder)
    for name, events in (("tags", part.tags), ("exemplars", part.exemplars), ("content", part.contents)):
        write(folder / f"{name}.jsonl", events)
    return part


def annotated(few: Slice) -> list[Exemplar]:
    """Contents that memory does not hold."""
    known = {tag.id for tag in few.tags}
    found = [item.model_copy(update={"id": f"{item.id}-2"}) for item in few.exemplars]
    return [item.model_copy(update={"accepted": tags}) for item in found if (tags := tuple(known & set(item.accepted)))]


def as_tsv(few: Slice, folder: Path) -> Path:
    """The folder that `evaluate` reads."""
    folder.mkdir()
    numbers = {tag.id: number for number, tag in enumerate(few.tags)}
    (folder / "labels.tsv").write_text("".join(f"{numbers[tag.id]}\t<x>\t{tag.name}\n" for tag in few.tags))
    lines = [
        f"{item.title or item.text}\t{','.join(str(numbers[tag]) for tag in item.accepted)}\n"
        for item in annotated(few)
    ]
    for name, part in (("train", lines), ("val", lines[:10]), ("test", lines[10:20])):
        (folder / f"{name}.tsv").write_text("".join(part))
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_no_command_writes_elsewhere_or_calls_home(place: Place, few: Slice, mock_kafka: MockCluster) -> None:
    mock_kafka.topic("tags", 1)
    calibration = write(few.folder / "calibration.jsonl", annotated(few))

    codes = run(
        place,
        ["config"],
        ["schema", "tagged"],
        ["asyncapi"],
        ["validate", few.file],
        ["tag", few.file, *few.memory, "--cache", "cache"],
        ["explain", few.file, *few.memory, "--cache", "cache"],
        ["calibrate", calibration, *few.memory, "--out", "calibration.json", "--cache", "cache"],
        ["evaluate", as_tsv(few, few.folder / "tsv"), "--out", "figures.json", "--cache", "cache"],
        ["publish", few.folder / "tags.jsonl", "--to", "tags"],
        ["check"],
        KAFKA__BROKERS=mock_kafka.address,
        **{name.removeprefix("TAGBUS_"): value for name, value in packaged().items()},
    )

    # The mock cluster has not all topics, which `check` tells.
    assert codes == dict.fromkeys(codes, 0) | {"check": 3}, place.told()
    place.check([mock_kafka.address])


def test_the_clients_of_servers_ask_the_configured_ones_alone(place: Place, mock_kafka: MockCluster) -> None:
    """Given Triton, Qdrant and a schema registry that do not answer, when `check` asks them, then nobody else is."""
    triton, qdrant, registry = free_ports(3)

    codes = run(
        place,
        ["check"],
        KAFKA__BROKERS=mock_kafka.address,
        ENCODER__KIND="triton",
        ENCODER__ADDRESS=f"127.0.0.1:{triton}",
        ENCODER__DEADLINE_SECONDS="2",
        MEMORY__KIND="server",
        MEMORY__URL=f"http://127.0.0.1:{qdrant}",
        REGISTRY__URL=f"http://127.0.0.1:{registry}",
    )

    assert codes == {"check": 3}, place.told()
    place.check([mock_kafka.address, *(f"127.0.0.1:{port}" for port in (triton, qdrant, registry))])


def test_no_worker_does(place: Place, few: Slice, mock_kafka: MockCluster) -> None:
    for topic in ("content", "tags", "exemplars", "tagged", "content.dlq", "content.versions", "feedback"):
        mock_kafka.topic(topic, 1)
    for topic, events in (("tags", few.tags), ("exemplars", few.exemplars), ("content", few.contents)):
        produce(mock_kafka.address, topic, [(event.id.encode(), encode(event), ()) for event in events])
    (port,) = free_ports(1)
    settings = packaged() | {"KAFKA__BROKERS": mock_kafka.address, "KAFKA__DELIVERY": "at_least_once"}
    process = place.start(
        ["-m", "tagbus.stream.cli", "run"],
        HEALTH__PORT=str(port),
        MEMORY__KIND="embedded",
        **{name.removeprefix("TAGBUS_"): value for name, value in settings.items()},
    )
    try:
        wait_until(lambda: len(consume_all(mock_kafka.address, "tagged")) >= len(few.contents), 120, "results")
        assert get(port, "/readyz")[0] == 200, place.told()
        assert get(port, "/metrics")[0] == 200
    finally:
        for child in children(process.pid):
            os.kill(child, signal.SIGTERM)
        process.wait(60)

    assert process.returncode == 0, place.told()
    place.check([mock_kafka.address, f"127.0.0.1:{port}"])
