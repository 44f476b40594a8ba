"""The way of a better release into force, and where it is interrupted; on real Kafka: tests/kafka/test_auto.py."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tagbus.models.auto import production
from tagbus.models.auto.production import Pending, Rollout, train
from tagbus.models.auto.run import PENDING, Asked, Run, write
from tagbus.stream.app.releases.behaviour import Limits, ReleaseBehaviour
from tagbus.stream.app.releases.shadow_run import ShadowRun
from tagbus.stream.config import Settings
from tagbus.stream.errors import CheckFailed, UserError

SINCE = datetime(2026, 11, 14, tzinfo=UTC)
PROPOSED = Rollout(shadow=50, watched=None, minutes=1, limits=Limits())


class Way:
    """What is done on it, each without doing it; `stops` raises at one of these once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.done = folder, list[str]()
        self.stops: dict[str, BaseException] = {}
        for name in ("_trained", "_build", "_in_shadow"):
            monkeypatch.setattr(production, name, getattr(self, name.removeprefix("_")))
        monkeypatch.setenv("TAGBUS_RELEASES__FOLDER", str(folder))
        monkeypatch.setenv("TAGBUS_COMPONENTS__LITERAL__ENABLED", "true")

    def go(self) -> None:
        train(Run(self.folder / "new", Asked(corpus="topics", minutes=1, since="14d"), SINCE), SINCE, PROPOSED)

    def step(self, name: str) -> None:
        if (stop := self.stops.pop(name, None)) is not None:
            raise stop
        self.done.append(name)

    def trained(self, run: Run, _: Settings, __: datetime) -> None:
        self.step("train")
        run.work.mkdir()
        write(run.work / PENDING, Pending(curve=None))
        run.to.mkdir()

    def build(self, *_: object) -> None:
        self.step("build")

    async def in_shadow(self, *_: object) -> ShadowRun:
        self.step("shadow")
        return ShadowRun(ReleaseBehaviour(), ReleaseBehaviour(), 0)


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    return Way(tmp_path, monkeypatch)


@pytest.mark.parametrize("where", ["build", "shadow"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), UserError("topic content holds no content")])
def test_a_command_that_is_cut_off_after_the_training_does_not_train_again(
    way: Way, where: str, stop: BaseException
) -> None:
    way.stops[where] = stop
    with pytest.raises(type(stop)):
        way.go()
    way.done.clear()
    way.go()
    assert way.done == ["build", "shadow"]


def test_what_was_decided_is_not_decided_again(way: Way) -> None:
    """Given a release that was proposed, when the command is given again, then it is refused: it might have been taken
    back since."""
    way.go()
    with pytest.raises(UserError, match="is there already, and a release never changes: name another one"):
        way.go()
    assert way.done == ["train", "build", "shadow"]


def test_a_release_that_failed_in_shadow_is_not_tried_again(way: Way) -> None:
    way.stops["shadow"] = CheckFailed("release new failed in shadow")
    with pytest.raises(CheckFailed):
        way.go()
    with pytest.raises(UserError, match="is there already"):
        way.go()


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_ends_the_watch_so_that_the_release_before_can_return(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(raised), production._ended_by_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
