"""A release that is watched and taken back; what is counted of it on real Kafka: tests/kafka/test_auto.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tagbus.stream.app.releases import watch
from tagbus.stream.app.releases.behaviour import ReleaseBehaviour
from tagbus.stream.app.releases.watch import Watch
from tagbus.stream.config import Settings


@contextmanager
def reading(_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(discover=lambda *_: None)


@pytest.mark.parametrize(
    ("meanwhile", "activated"), [("new", ["new", "old"]), ("third", ["new"])], ids=["nobody", "an operator"]
)
def test_it_is_taken_back_unless_somebody_put_another_one_in_force(
    meanwhile: str, activated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a release that passes a limit, and another one in force meanwhile, then that one stays."""
    done: list[str] = []

    def activate(_: Settings, name: str) -> str:
        done.append(name)
        return "old"

    monkeypatch.setattr(watch, "TopicReader", reading)
    monkeypatch.setattr(watch, "_watch", lambda *_: (ReleaseBehaviour(), "too many dead letters"))
    monkeypatch.setattr(watch.switching, "activate", activate)
    monkeypatch.setattr(watch.recorded, "read_releases", lambda _: None)
    monkeypatch.setattr(watch.recorded, "in_force", lambda *_: meanwhile)

    found = watch.activate(Settings(), "new", Watch(100, 1, ReleaseBehaviour()))

    assert found.problem == "too many dead letters"
    assert done == activated
