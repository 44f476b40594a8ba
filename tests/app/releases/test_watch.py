"""A release that is watched and taken back; what is counted of it on real Kafka: tests/kafka/test_auto.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tagbus.stream.app.releases import watch
from tagbus.stream.app.releases.behaviour import ReleaseBehaviour
from tagbus.stream.app.releases.watch import Watch
from tagbus.stream.config import Settings
from tagbus.stream.errors import DependencyDown


@contextmanager
def reading(_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(discover=lambda *_: None)


class Switches(list[str]):
    """The releases that were put in force; the one of `down` is not, since no broker answers."""

    down = ""

    def activate(self, _: Settings, name: str) -> str:
        if name == self.down:
            raise DependencyDown("no broker answers")
        self.append(name)
        return "old"


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> Switches:
    """Of a release that passes a limit."""
    found = Switches()
    monkeypatch.setattr(watch, "TopicReader", reading)
    monkeypatch.setattr(watch, "_watch", lambda *_: (ReleaseBehaviour(), "too many dead letters"))
    monkeypatch.setattr(watch.switching, "activate", found.activate)
    monkeypatch.setattr(watch.recorded, "read_releases", lambda _: None)
    monkeypatch.setattr(watch.recorded, "in_force", lambda *_: "new")
    return found


def watched() -> str:
    return watch.activate(Settings(), "new", Watch(100, 1, ReleaseBehaviour())).problem


def test_it_is_taken_back(switches: Switches) -> None:
    assert watched() == "too many dead letters"
    assert switches == ["new", "old"]


def test_another_one_that_somebody_put_in_force_meanwhile_stays(
    switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.recorded, "in_force", lambda *_: "third")
    assert watched() == "too many dead letters"
    assert switches == ["new"]


def test_where_it_cannot_be_taken_back_that_is_said(switches: Switches, capfd: pytest.CaptureFixture[str]) -> None:
    switches.down = "old"
    with pytest.raises(DependencyDown):
        watched()
    said = capfd.readouterr().err.replace("\n", " ")
    assert "release new may still be in force: `tagbus release activate old` puts the one before back" in said
