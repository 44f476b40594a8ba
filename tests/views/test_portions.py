"""A batch in which one content is retagged thousands of times: its row stays within what the brokers take."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from faust.types import EventT

from tagbus.stream.config import KafkaSettings, Settings, ViewsSettings
from tagbus.stream.errors import DependencyDown, Fatal
from tagbus.stream.views.application import Views
from tagbus.stream.views.contents import Change, ContentRow
from tagbus.stream.views.records import CHANGES

TAGS = [f"http://www.yso.fi/onto/yso/p{10_000 + number}" for number in range(10)]
# Half of it is what the versions of a content may take.
ROW_BYTES = ViewsSettings().row_bytes
PATIENT = KafkaSettings(session_seconds=3_600)


@dataclass(frozen=True)
class Message:
    offset: int
    key: bytes
    value: bytes | None
    partition: int = 0
    timestamp: float = 1_800_000_000.0


@dataclass(frozen=True)
class Event:
    message: Message


@dataclass
class Brokers:
    """Stand where table and topic do. `told`: offsets whose changes are confirmed; `rows`: what each row held, and up
    to where changes were confirmed before it was written."""

    row: bytes | None = None
    rows: list[tuple[ContentRow, int, int]] = field(default_factory=list)
    sent: list[Change] = field(default_factory=list)
    confirmed: int = -1

    def get(self, _: bytes) -> bytes | None:
        return self.row

    def __setitem__(self, _: bytes, row: bytes) -> None:
        self.row = row
        self.rows.append((ContentRow.model_validate_json(row), len(row), self.confirmed))

    def __delitem__(self, _: bytes) -> None:
        self.row = None

    async def send(self, *, key: bytes, value: bytes) -> "asyncio.Future[None]":
        assert key
        self.sent += CHANGES.validate_json(value)
        return self._answer()

    def take_sent(self) -> Sequence["asyncio.Future[None]"]:
        return [self._answer()]

    def _answer(self) -> "asyncio.Future[None]":
        answer = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._confirm, answer)
        return answer

    def _confirm(self, answer: "asyncio.Future[None]") -> None:
        self.confirmed = max((change.offset for change in self.sent), default=-1)
        answer.set_result(None)


def result(offset: int, tags: int) -> Event:
    """The content `ticker`, tagged for the so manieth time."""
    shown = [
        {
            "id": tag,
            "name": f"some subject heading {number}",
            "score": 1,
            "confidence": round(0.001 * ((offset * 7 + number) % 900), 4),
            "stage": "rank",
            "evidence": {},
        }
        for number, tag in enumerate(TAGS[:tags])
    ]
    versions = {"release": "r1", "taxonomy": {}, "calibration": "none"}
    value = {"id": "ticker", "tags": shown, "versions": versions, "path": ["recall"]}
    return Event(Message(offset, b"ticker", json.dumps(value).encode()))


async def applied(views: Views, events: Sequence[Event]) -> None:
    await views._finish(views._tell(cast(Sequence[EventT[bytes]], events)))


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
async def views(tmp_path: Path, brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> Views:
    made = Views(Settings(kafka=PATIENT), tmp_path, partitions=1)
    monkeypatch.setattr(made, "contents", brokers)
    monkeypatch.setattr(made, "_changes", brokers)
    return made


async def test_the_row_of_a_content_that_fills_a_batch_stays_within_its_bytes(views: Views, brokers: Brokers) -> None:
    # Given a content that is retagged 2,000 times in a row, and is then withdrawn
    count = 2_000
    batch = [*(result(offset, len(TAGS)) for offset in range(count)), Event(Message(count, b"ticker", None))]
    # When one batch holds all of it
    await applied(views, batch)
    # Then no row is larger than the brokers take, and each change is sent once, in order
    assert max(size for _, size, _ in brokers.rows) < ROW_BYTES * 0.6
    ours = [change for change in brokers.sent if change.name.endswith(" 0")]
    assert [change.offset for change in ours] == list(range(count + 1))
    assert all(one.after == other.before for one, other in pairwise(ours))
    assert brokers.row is None
    # And a row drops only versions whose changes the brokers have confirmed
    assert all(row.versions[0].offset <= confirmed for row, _, confirmed in brokers.rows)


async def test_small_batches_are_applied_at_once(views: Views, brokers: Brokers) -> None:
    await applied(views, [result(offset, 3) for offset in range(100)])
    assert len(brokers.rows) == 1


async def test_after_a_crash_the_same_changes_are_sent_and_the_row_grows_no_further(
    views: Views, brokers: Brokers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a batch whose commit was lost
    count = 300
    await applied(views, [result(offset, len(TAGS)) for offset in range(count)])
    sent = {(change.name, change.offset): change for change in brokers.sent}
    # When its process starts again and again, and reads a little more each time
    for start in range(3):
        again = Views(Settings(kafka=PATIENT), tmp_path, partitions=1)
        monkeypatch.setattr(again, "contents", brokers)
        monkeypatch.setattr(again, "_changes", brokers)
        brokers.sent.clear()
        await applied(again, [result(offset, len(TAGS)) for offset in range(count + 60 * start)])
        # Then what is sent again is as it was
        repeated = [change for change in brokers.sent if (change.name, change.offset) in sent]
        assert repeated
        assert all(sent[change.name, change.offset] == change for change in repeated)
        sent |= {(change.name, change.offset): change for change in brokers.sent}
    assert max(size for _, size, _ in brokers.rows) < ROW_BYTES * 0.6


async def test_a_result_larger_than_a_row_should_be_is_applied_alone(
    tmp_path: Path, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are small where little is kept of a tag: an end must come all the same."""
    own = ViewsSettings(contents=1, together=1, window_seconds=(3_600,))
    made = Views(Settings(kafka=PATIENT, views=own), tmp_path, partitions=1)
    monkeypatch.setattr(made, "contents", brokers)
    monkeypatch.setattr(made, "_changes", brokers)
    wide = [result(offset, len(TAGS)) for offset in range(10)]
    long = "n" * 500
    for event in wide:
        value = json.loads(event.message.value or b"")
        value["tags"] = [tag | {"name": f"{long} {tag['id'][-1]}"} for tag in value["tags"]]
        object.__setattr__(event.message, "value", json.dumps(value).encode())
    await applied(made, wide)
    assert [len(row.versions) for row, _, _ in brokers.rows] == [2] * len(wide)


async def test_after_a_failure_no_further_batch_is_applied(views: Views, brokers: Brokers) -> None:
    """Faust restarts an agent that failed. What a later batch would drop from a row is not delivered."""
    views._fail(RuntimeError("no broker has it"))
    with pytest.raises(Fatal, match="before this one"):
        await applied(views, [result(0, 3)])
    assert not brokers.rows
    assert str(views.problem) == "no broker has it"


async def test_a_batch_whose_confirmation_is_cancelled_is_a_failure(views: Views, brokers: Brokers) -> None:
    """Faust's producer cancels what it has not sent when it stops."""

    def cancelled() -> Sequence["asyncio.Future[None]"]:
        answer = asyncio.get_running_loop().create_future()
        answer.cancel()
        return [answer]

    brokers.take_sent = cancelled  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await applied(views, [result(0, 3)])
    assert isinstance(views.problem, DependencyDown)
