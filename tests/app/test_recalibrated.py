"""Which release is calibrated from people's decisions: the one that they judged last."""

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Message

from tagbus.stream.app.joining.recalibration import Recalibrator
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.decision import Decision, ShownTag
from tagbus.stream.contract.events import Versions
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.feedback.learning import Refit
from tagbus.stream.index.releases import Releases

NOW = datetime.now(UTC)
SHOWN = ShownTag(tag="t", rank=1, score=0.5, confidence=0.5, stage="recall")


def message(number: int, release: str, arrived: datetime, time: datetime) -> Message:
    decision = Decision(
        id=f"c{number}",
        decision=f"d{number}",
        who="ann",
        mode="review",
        time=time,
        accepted=("t",),
        shown=(SHOWN,),
        versions=Versions(release=release, taxonomy={}, calibration="none"),
        path=("prepare", "encode", "recall"),
    )
    stamp = (1, int(arrived.timestamp() * 1000))
    return Message(
        topic="feedback", partition=0, offset=number, key=f"c{number}".encode(), value=encode(decision), timestamp=stamp
    )


@pytest.mark.parametrize("ahead", [timedelta(hours=-2), timedelta(days=3650)])
def test_a_decision_of_the_far_future_does_not_keep_an_old_release(
    monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    """Given a decision on r-1 with a time far ahead, when one on r-2 arrives after it, then r-2 is calibrated."""
    fitted: list[str] = []

    def take(_: Recalibrator, fingerprint: Fingerprint, __: Refit | None) -> None:
        fitted.append(fingerprint.release)

    monkeypatch.setattr(Recalibrator, "_take", take)
    calibrating = Recalibrator(Settings.model_construct(), lambda: True)
    arrived = NOW - timedelta(hours=1)

    calibrating._learn([message(1, "r-1", arrived, NOW + ahead), message(2, "r-2", NOW, NOW - timedelta(minutes=1))])
    calibrating._fit(Releases())

    assert fitted == ["r-2"]
