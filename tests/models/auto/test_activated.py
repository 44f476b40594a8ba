"""The release of a run is one that `tagbus release` builds and activates, and that a worker tags with, on Kafka."""

import shutil
from pathlib import Path

import pytest

from tagbus.models.auto.run import REPORT, Report
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.app.service import Service
from tagbus.stream.contract.codec import decode_tagged, encode_record
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.kafka.message import record_of
from tests.bus.harness import RunningWorker, settings
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.models.auto.conftest import NAME, Made
from tests.releases import Bus
from tests.support import consume_all, produce, wait_until

pytestmark = pytest.mark.kafka


def test_it_is_built_activated_and_tags(
    made: Made, kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The builder leaves its snapshot in the folder of the release.
    shutil.copytree(made.release, tmp_path / NAME)
    bus, tagbus = Bus.made(kafka.address), Cli(monkeypatch, capsys)
    for name, events in (
        ("tags", files.all_of(example("tags.jsonl"), files.tag_of)[:40]),
        ("content", files.all_of(example("content.jsonl"), files.content_of)[:10]),
    ):
        records = [encode_record(event) for event in events]
        produce(bus.address, bus.names[name], [(one.key, one.value, []) for one in records])
    given = {**bus.command(tmp_path), "COMPONENTS__LITERAL__ENABLED": "true"}
    for command in ("build", "activate"):
        answer = tagbus("release", command, NAME, settings=given)
        assert answer.code == 0, answer.err

    worker = Service(
        settings(
            bus.address,
            bus.names,
            releases={"folder": tmp_path},
            components={"literal": {"enabled": True}},
        )
    ).worker
    run = RunningWorker(worker).until_ready()
    results = wait_until(lambda: consume_all(bus.address, bus.names["tagged"]), 120, "results")
    worker.stop()
    run.join()
    assert run.error is None, run.error
    result = decode_tagged(record_of(results[0]))
    assert isinstance(result, TaggedContent)
    assert result.versions.release == NAME
    parts = Report.model_validate_json((made.release / REPORT).read_bytes()).selection.parts
    assert set(result.versions.components) == {"literal", *parts}
