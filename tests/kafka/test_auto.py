"""`tagbus train auto topics --since`: a release out of what people decided goes into force only where it is better, and
comes back out where it misbehaves; beside a worker that tags all the time."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tagbus.stream.acceptance.twin import twin
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.app.service import Service
from tagbus.stream.contract.codec import decode_tagged, encode_record
from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
from tagbus.stream.encoder.release import RELEASE, default_folder
from tagbus.stream.index.releases import Releases
from tagbus.stream.kafka.message import record_of
from tagbus.stream.tagger import Outcome, Tagger
from tests.bus.harness import RunningWorker, settings
from tests.cli.harness import Answer, Cli
from tests.conftest import Broker
from tests.releases import SHIPPED, Bus
from tests.support import consume_all, produce, wait_until

pytest.importorskip("torch")
pytestmark = pytest.mark.kafka

NEW, POOR = "auto-1", "poor-1"
TAGS, LEARNT, DECIDED, CONTENTS = 40, 60, 90, 50
NOW = datetime.now(UTC)
# One neighbour and one tag: few right tags are found.
LITTLE = {"c2t_limit": 1, "c2c2t_limit": 1, "tag_keys": 1, "content_keys": 1}
Train = Callable[..., Answer]


def poor(folder: Path, place: Path, name: str) -> Path:
    """A release as `twin` makes it, which finds little."""
    made = twin(folder, place, name)
    about = json.loads((made / RELEASE).read_text())
    (made / RELEASE).write_text(json.dumps({**about, "recall": {**about["recall"], **LITTLE}}))
    return made


@pytest.fixture
def bus(kafka: Broker) -> Bus:
    """Topics with what people decided, 60 contents a month ago and 90 today, and contents that are to be tagged."""
    made = Bus.made(kafka.address)
    every = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    counts = Counter(tag for one in every for tag in one.accepted)
    chosen = {tag for tag, _ in counts.most_common(TAGS)}
    known = [
        one.model_copy(update={"accepted": kept})
        for one in every
        if (kept := tuple(tag for tag in one.accepted if tag in chosen))
    ]
    decided = [one.model_copy(update={"time": NOW - timedelta(days=30)}) for one in known[:LEARNT]]
    decided += [
        one.model_copy(update={"time": NOW - timedelta(minutes=DECIDED - number)})
        for number, one in enumerate(known[LEARNT : LEARNT + DECIDED])
    ]
    send(made, "tags", [tag for tag in files.all_of(example("tags.jsonl"), files.tag_of) if tag.id in chosen])
    send(made, "exemplars", decided)
    send(made, "content", contents("before"))
    return made


def contents(prefix: str) -> list[Content]:
    some = files.all_of(example("content.jsonl"), files.content_of)[:CONTENTS]
    return [one.model_copy(update={"id": f"{prefix}-{one.id}"}) for one in some]


def send(bus: Bus, topic: str, events: Sequence[Tag | Exemplar | Content]) -> None:
    records = [encode_record(event) for event in events]
    produce(bus.address, bus.names[topic], [(one.key, one.value, []) for one in records])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of releases, with a poor one."""
    poor(default_folder(), tmp_path / "releases", POOR)
    return tmp_path / "releases"


@pytest.fixture
def train(bus: Bus, folder: Path, tagbus: Cli, monkeypatch: pytest.MonkeyPatch) -> Train:
    """The command. It finds so little that memory alone is all: how parts are trained is shown by tests/models/auto."""
    monkeypatch.setattr("tagbus.models.auto.choice.LEAST", 100_000)

    def run(base: Path, *more: str) -> Answer:
        given = {**bus.command(folder), "COMPONENTS__LITERAL__ENABLED": "true", "ENCODER__FOLDER": str(base)}
        options = ("--since", "2d", "--minutes", "1", "--shadow", str(CONTENTS), "--activate", *more)
        return tagbus("train", "auto", "topics", "--out", folder / NEW, *options, settings=given)

    return run


def topic(bus: Bus) -> Releases:
    found = Releases()
    for message in consume_all(bus.address, bus.names["releases"]):
        found = found.after(record_of(message))
    return found


def active(bus: Bus) -> str | None:
    found = topic(bus).active
    return None if found is None else found.release


@contextmanager
def tagging(bus: Bus, folder: Path, base: Path) -> Iterator[None]:
    """A worker, and contents that flow as soon as the new release is in force; 6 to each 50 are no contents."""
    given = settings(
        bus.address,
        bus.names,
        releases={"folder": folder},
        encoder={"folder": base},
        components={"literal": {"enabled": True}},
    )
    run, done = RunningWorker(Service(given).worker).until_ready(), threading.Event()

    def flow() -> None:
        number = 0
        while not done.wait(1.0):
            if active(bus) == NEW:
                number += 1
                send(bus, "content", contents(f"flow-{number}"))
                produce(bus.address, bus.names["content"], [(b"broken", b"{", [])] * 6)

    flowing = threading.Thread(target=flow, daemon=True)
    flowing.start()
    try:
        yield
    finally:
        done.set()
        flowing.join(120)
        run.worker.stop()
        run.join()
    assert run.error is None, run.error


def tagged_by(bus: Bus, prefix: str) -> set[str]:
    """The releases that tagged the contents of that prefix."""
    found = [decode_tagged(record_of(message)) for message in consume_all(bus.address, bus.names["tagged"])]
    return {one.versions.release for one in found if isinstance(one, TaggedContent) and one.id.startswith(prefix)}


def test_a_worse_release_is_never_activated(
    bus: Bus, folder: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagbus.models.auto.steps.twin", poor)
    answer = train(default_folder())
    assert answer.code == 3, answer.err
    said = " ".join(answer.err.split())
    assert f"release {NEW} is not proposed: " in said
    assert "nDCG@5 is proven to fall" in said
    assert topic(bus) == Releases()
    assert not (folder / NEW).exists()


def test_a_better_release_is_activated_and_tags(bus: Bus, folder: Path, train: Train) -> None:
    base = folder / POOR
    with tagging(bus, folder, base):
        answer = train(base, "--watch", str(3 * CONTENTS), "--watch-minutes", "5")
        assert answer.code == 0, answer.err
        assert f"release {NEW} is active" in answer.out
        assert NEW in tagged_by(bus, "flow")
    assert active(bus) == NEW
    assert {name for name, _ in topic(bus).calibrations} == {NEW}
    report = json.loads((folder / NEW / "auto.json").read_text())
    assert report["comparison"]["active"] == POOR
    assert report["comparison"]["contents"] == DECIDED // 3
    assert report["comparison"]["ndcg"]["low"] > 0


def test_a_release_that_misbehaves_is_taken_back(
    bus: Bus, folder: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = Tagger.tag

    async def fails(tagger: Tagger, some: Sequence[Content], *more: str | None) -> list[Outcome]:
        """As a bug that one content in five of those that flow now brings out."""
        if tagger.versions().release == NEW and any(sum(one.id.encode()) % 5 == 0 for one in some if "flow" in one.id):
            raise ZeroDivisionError
        return await tag(tagger, some, *more)

    monkeypatch.setattr(Tagger, "tag", fails)
    base = folder / POOR
    with tagging(bus, folder, base):
        answer = train(base, "--watch", "600", "--watch-minutes", "5")
        assert answer.code == 3, answer.err
        said = " ".join(answer.err.split())
        assert f"release {NEW} was taken back: " in said
        assert "contents became dead letters, at most 2.0% may" in said
        assert active(bus) == POOR
        send(bus, "content", contents("after"))
        wait_until(lambda: tagged_by(bus, "after") == {POOR}, 120, "results of the release before")
    # The new one is still held by the workers, until somebody drops it.
    assert NEW in topic(bus).records


def test_a_release_of_a_folder_that_workers_do_not_see_is_refused(
    folder: Path, tmp_path: Path, bus: Bus, tagbus: Cli
) -> None:
    given = {**bus.command(folder), "COMPONENTS__LITERAL__ENABLED": "true"}
    answer = tagbus("train", "auto", "topics", "--out", tmp_path / NEW, "--since", "2d", settings=given)
    assert answer.code == 2
    assert f"--out: {tmp_path / NEW} is not in TAGBUS_RELEASES__FOLDER={folder}" in answer.one_line()
    answer = tagbus("train", "auto", "topics", "--out", folder / NEW, "--since", "2d", settings=bus.command(folder))
    assert answer.code == 2
    assert "TAGBUS_COMPONENTS__LITERAL__ENABLED is not true here" in answer.one_line()


def test_too_few_decisions_are_said(bus: Bus, folder: Path, train: Train, tagbus: Cli) -> None:
    given = {**bus.command(folder), "COMPONENTS__LITERAL__ENABLED": "true"}
    answer = tagbus("train", "auto", "topics", "--out", folder / NEW, "--since", "1h", settings=given)
    assert answer.code == 2
    assert "contents were decided since" in answer.one_line()
    assert "expected at least 90" in answer.one_line()
    assert SHIPPED.name not in topic(bus).records
