"""`tagbus release`: build, check, activate, roll back, drop, list; and what each refuses."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.app.places.folders import settings_of
from tagbus.stream.config import Settings, TaggerSettings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import TaggedContent, Versions
from tagbus.stream.contract.fields import Event
from tagbus.stream.contract.release import Active, Fingerprint, ReleaseRecord, Served, encode_release
from tagbus.stream.encoder.release import MODEL, default_folder, load_release
from tagbus.stream.index import snapshot
from tagbus.stream.index.releases import Releases
from tagbus.stream.kafka.message import record_of
from tests.cli.harness import Cli, Slice, write
from tests.conftest import Broker
from tests.releases import SHIPPED, Bus, make_release, make_twin
from tests.support import consume_all, produce

pytestmark = pytest.mark.kafka

SECOND = "second-1"
ANNOTATED, FEW = 200, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of releases; it holds one beside the shipped one."""
    return make_release(tmp_path_factory.mktemp("releases"), SECOND).parent


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contents with their right tags that memory does not hold."""
    some = files.all_of(example("calibration.jsonl"), files.exemplar_of)[:ANNOTATED]
    return write(tmp_path_factory.mktemp("annotated") / "annotated.jsonl", some)


@pytest.fixture
def bus(kafka: Broker) -> Bus:
    return Bus.made(kafka.address)


def publish(bus: Bus, topic: str, events: Sequence[Event]) -> None:
    records = [encode_record(event) for event in events]  # type: ignore[arg-type]
    produce(bus.address, bus.names[topic], [(one.key, one.value, []) for one in records])


def put(bus: Bus, *events: ReleaseRecord | Active) -> None:
    records = [encode_release(event) for event in events]
    produce(bus.address, bus.names["releases"], [(one.key, one.value, []) for one in records])


def topic(bus: Bus) -> Releases:
    releases = Releases()
    for message in consume_all(bus.address, bus.names["releases"]):
        releases = releases.after(record_of(message))
    return releases


def result(release: str) -> TaggedContent:
    versions = Versions(release=release, calibration="none", taxonomy={})
    return TaggedContent(id="a", tags=(), versions=versions, path=())


def record(folder: Path) -> ReleaseRecord:
    return ReleaseRecord(release=load_release(folder / SECOND))


def test_from_the_first_build_to_the_drop(bus: Bus, tagbus: Cli, folder: Path, cutting: Slice, annotated: Path) -> None:
    """The commands in the order of docs/operator.md, without workers."""
    publish(bus, "tags", cutting.tags[:FEW])
    publish(bus, "exemplars", cutting.exemplars[:FEW])
    given = bus.command(folder)

    for name in (SHIPPED.name, SECOND):
        assert tagbus("release", "build", name, settings=given).code == 0
    left = snapshot.current(folder / SECOND / "memory")
    assert left is not None
    assert left.release == SECOND
    assert sum(one.offset for one in left.positions) >= 2 * FEW
    assert set(topic(bus).records) == {SHIPPED.name, SECOND}

    checked = tagbus("release", "check", SECOND, annotated, settings=given)
    # The same encoder with another template and temperature is as good, give or take; all else is right for sure.
    verdicts = {line[8:20].strip(): line[:7].strip() for line in checked.lines}
    assert verdicts.pop("shadow P@1") in {"ok", "not ok"}
    assert verdicts == dict.fromkeys(("offsets", "counts", "golden texts", "calibration"), "ok"), checked.out

    assert tagbus("release", "activate", SECOND, settings=given).code == 0
    found = topic(bus)
    assert found.active is not None
    assert found.active.release == SECOND
    listed = tagbus("release", "list", settings=given)
    assert [SECOND in line for line in listed.lines if " active " in line] == [True]

    refused = tagbus("release", "drop", SECOND, settings=given)
    assert (refused.code, refused.one_line()) == (
        2,
        f"tagbus: release {SECOND} is in force; activate another first",
    )
    publish(bus, "tagged", [result(SHIPPED.name)])
    refused = tagbus("release", "drop", SHIPPED.name, settings=given)
    assert refused.code == 2
    assert f"release {SHIPPED.name} produced {bus.names['tagged']}:" in refused.one_line()
    assert tagbus("release", "drop", SHIPPED.name, "--minutes", "0", settings=given).code == 0
    assert set(topic(bus).records) == {SECOND}


def test_a_check_that_is_all_right_puts_the_calibration_on_the_topic(
    bus: Bus, tagbus: Cli, tmp_path: Path, cutting: Slice, annotated: Path
) -> None:
    """Given the shipped encoder under another name, its figures are those of the one in force."""
    make_twin(tmp_path, "twin-1")
    publish(bus, "tags", cutting.tags[:FEW])
    given = bus.command(tmp_path)
    assert tagbus("release", "build", "twin-1", settings=given).code == 0
    assert topic(bus).calibrations == {}

    checked = tagbus("release", "check", "twin-1", annotated, settings=given)

    assert checked.code == 0, checked.out + checked.err
    ((place, curve),) = topic(bus).calibrations.items()
    assert place == ("twin-1", "recall")
    assert curve.fingerprint == Fingerprint("twin-1", "recall", {})
    assert tagbus("release", "drop", "twin-1", settings=given).code == 0
    assert topic(bus).calibrations == {}


def test_a_release_that_was_not_built_is_not_ok(bus: Bus, tagbus: Cli, tmp_path: Path, annotated: Path) -> None:
    make_twin(tmp_path, "twin-1")
    put(bus, ReleaseRecord(release=load_release(tmp_path / "twin-1")))
    answer = tagbus("release", "check", "twin-1", annotated, settings=bus.command(tmp_path))
    assert answer.code == 3
    assert "not ok  offsets      there is no snapshot: workers would read and encode everything" in answer.lines


@pytest.mark.parametrize("command", ["activate", "drop"])
def test_an_unknown_release_is_refused_with_those_that_are_known(
    bus: Bus, tagbus: Cli, folder: Path, command: str
) -> None:
    put(bus, record(folder))
    answer = tagbus("release", command, "third-1", settings=bus.command(folder))
    assert answer.code == 2
    assert (
        f"release third-1 is not on the topic (it has: {SECOND}); `tagbus release build third-1`" in answer.one_line()
    )


def test_a_release_whose_folder_is_absent_or_another_is_not_activated(
    bus: Bus, tagbus: Cli, folder: Path, tmp_path: Path
) -> None:
    put(bus, record(folder))
    answer = tagbus("release", "activate", SECOND, settings=bus.command(tmp_path))
    assert answer.code == 6
    assert f"expected {tmp_path / SECOND}" in answer.one_line()
    make_release(tmp_path, SECOND, seed=2)
    answer = tagbus("release", "activate", SECOND, settings=bus.command(tmp_path))
    assert answer.code == 6
    assert f"{tmp_path / SECOND / MODEL} has the SHA-256 " in answer.one_line()
    assert topic(bus).active is None


def test_a_release_that_was_recorded_is_never_built_from_other_files(
    bus: Bus, tagbus: Cli, folder: Path, tmp_path: Path
) -> None:
    put(bus, record(folder))
    make_release(tmp_path, SECOND, seed=2)
    answer = tagbus("release", "build", SECOND, settings=bus.command(tmp_path))
    assert answer.code == 6
    assert "was recorded with" in answer.one_line()


def test_activating_what_is_in_force_changes_nothing(bus: Bus, tagbus: Cli, folder: Path) -> None:
    answer = tagbus("release", "activate", SHIPPED.name, settings=bus.command(folder))
    assert (answer.code, answer.err) == (0, f"release {SHIPPED.name} is already in force\n")
    assert topic(bus) == Releases()


def test_each_release_has_its_own_model_on_triton_and_its_own_heads_and_ranker(tmp_path: Path) -> None:
    base = Settings(components={"heads": {"folder": "base"}}, tagger=TaggerSettings(calibration=Path("base.json")))
    assert settings_of(base, default_folder(), None) == base
    (tmp_path / "ranker").mkdir()
    (tmp_path / "cross_encoder").mkdir()
    own = settings_of(base, tmp_path, Served(model="encoder", version=2))
    assert (own.encoder.folder, own.encoder.model, own.encoder.version) == (tmp_path, "encoder", 2)
    assert own.tagger.calibration is None
    folders = {name: section["folder"] for name, section in own.components.items()}
    assert (folders["heads"], folders["ranker"]) == (None, tmp_path / "ranker")
    assert folders["cross_encoder"] == tmp_path / "cross_encoder"


@pytest.mark.parametrize("name", ["../elsewhere", "active", "Upper", ""])
def test_a_name_that_is_none_is_one_line(tagbus: Cli, name: str) -> None:
    answer = tagbus("release", "drop", name, KAFKA__BROKERS="127.0.0.1:1")
    assert answer.code == 2
    assert "is not a release name" in answer.one_line()
