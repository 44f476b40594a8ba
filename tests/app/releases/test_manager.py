"""A worker's reaction to changes of `releases`: it loads all, tags by one, and never drops the working one."""

import asyncio
import gc
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from weakref import ref

import pytest

from tagbus.stream.app.releases import loaded
from tagbus.stream.app.releases import manager as manager_module
from tagbus.stream.app.releases.manager import ReleaseManager
from tagbus.stream.config import MemorySettings, RetrySettings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content, Exemplar, TaggedContent
from tagbus.stream.contract.release import Curve, ReleaseRecord, encode_release, release_key
from tagbus.stream.encoder.release import GOLDEN
from tagbus.stream.errors import DependencyDown, Fatal, ReleaseMismatch
from tagbus.stream.memory import Carried
from tagbus.stream.memory import open as memory
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.kinds import KINDS
from tagbus.stream.memory.store import Point
from tests.app.releases.parts import SECOND, SECONDS, active, gauge, recorded, running, send, settings_at, until
from tests.index.parts import Failing
from tests.releases import SHIPPED, Bus
from tests.support import produce

pytestmark = pytest.mark.kafka


async def test_a_release_is_swapped_in_and_back_and_tags_by_its_own_memory(bus: Bus, folder: Path) -> None:
    send(bus, encode_release(ReleaseRecord(release=SHIPPED)))
    async with running(settings_at(bus, folder)) as manager:
        assert manager.versions().release == SHIPPED.name
        send(bus, encode_release(recorded(folder)), active(SECOND))
        for name in (SECOND, SHIPPED.name, SECOND):
            send(bus, active(name))
            await until(manager, name)
            (result,) = await manager.tag([Content(id="a", title="Bees in the city: keeping bees")])
            assert isinstance(result, TaggedContent)
            assert (result.versions.release, result.tags[0].id) == (name, "bees")
            assert result.versions.taxonomy == manager.versions().taxonomy
        assert manager.notes() == []
        assert gauge("tagbus_releases_loaded") == 2


async def test_a_worker_that_starts_takes_what_is_active(bus: Bus, folder: Path) -> None:
    send(bus, encode_release(recorded(folder)), active(SECOND))
    async with running(settings_at(bus, folder)) as manager:
        assert manager.versions().release == SECOND


async def test_a_broken_release_is_refused_and_the_old_one_goes_on(bus: Bus, folder: Path, tmp_path: Path) -> None:
    """Given a folder whose golden texts are not the recorded ones, the file is named and the old release serves."""
    broken = tmp_path / SECOND
    broken.mkdir()
    for path in (folder / SECOND).iterdir():
        (broken / path.name).symlink_to(path)
    (broken / GOLDEN).unlink()
    (broken / GOLDEN).write_text("{}")
    async with running(settings_at(bus, tmp_path)) as manager:
        send(bus, encode_release(recorded(folder)), active(SECOND))
        async with asyncio.timeout(SECONDS):
            while GOLDEN not in " ".join(manager.notes()):
                await asyncio.sleep(0.02)
        note = f"release {SECOND} is active, but this worker still tags with {SHIPPED.name}: "
        assert manager.notes()[0].startswith(note)
        assert gauge("tagbus_release_pending") == 1
        assert isinstance((await manager.tag([Content(id="a", title="Bees")]))[0], TaggedContent)
        assert manager.versions().release == SHIPPED.name
        send(bus, active(SHIPPED.name))
        async with asyncio.timeout(SECONDS):
            while manager.notes():
                await asyncio.sleep(0.02)
        assert gauge("tagbus_release_pending") == 0


class Full(ExactStore):
    """A store that takes nothing."""

    async def upsert(self, points: Sequence[Point]) -> None:
        raise Fatal(f"no room for {len(points)} more")


async def test_a_release_that_fails_to_load_leaves_nothing_behind_and_is_tried_ever_more_seldom(
    bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a second release whose store takes nothing, its stores are freed while it waits for its next attempt."""
    attempts: list[ref[Full]] = []
    asked: list[float] = []

    async def opened(_: MemorySettings, kind: str, release: str, dimension: int, carried: Carried) -> ExactStore:
        if release != SECOND:
            return ExactStore(release, dimension, carried)
        store = Full(release, dimension, carried)
        attempts.append(ref(store))
        return store

    def waits(given: RetrySettings) -> Iterator[float]:
        assert given.cap_seconds > given.first_seconds
        for seconds in (0.0, 0.0, 0.0, 3600.0):
            asked.append(seconds)
            yield seconds

    monkeypatch.setattr(memory, "open_store", opened)
    monkeypatch.setattr(loaded, "backoff", waits)
    async with running(settings_at(bus, folder)) as manager:
        send(bus, encode_release(recorded(folder)), active(SECOND))
        async with asyncio.timeout(SECONDS):
            while asked != [0.0, 0.0, 0.0, 3600.0]:
                await asyncio.sleep(0.02)
        assert "no room for " in manager.notes()[0]
        assert len(attempts) == 4 * len(KINDS)
        assert [one for one in attempts if one() is not None] == []


async def test_a_release_that_waits_is_tried_at_once_when_it_is_made_active_again(
    bus: Bus, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a missing folder, an operator who adds it and activates the release waits for no backoff."""
    monkeypatch.setattr(loaded, "backoff", lambda _: itertools.repeat(3600.0))
    async with running(settings_at(bus, tmp_path)) as manager:
        send(bus, encode_release(recorded(folder)), active(SECOND))
        async with asyncio.timeout(SECONDS):
            while "has no folder here" not in " ".join(manager.notes()):
                await asyncio.sleep(0.02)
        (tmp_path / SECOND).symlink_to(folder / SECOND)
        send(bus, active(SECOND))
        await until(manager, SECOND)


async def test_a_start_without_the_release_that_is_active_ends_and_says_why(bus: Bus, tmp_path: Path) -> None:
    send(bus, active("nowhere-1"))
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(ReleaseManager(settings_at(bus, tmp_path)).run(), SECONDS)
    assert caught.group_contains(ReleaseMismatch, match="release nowhere-1 is active, but not on topic")


def fitted(name: str, **changes: object) -> Curve:
    """A calibration of the shipped release's recall."""
    given = {"name": name, "release": SHIPPED.name, "path": "recall", "scores": (0.1, 0.5), "probabilities": (0.2, 0.9)}
    return Curve.model_validate(given | {"fitted_on": 1, "contents": 1} | changes)


async def test_a_refitted_calibration_counts_without_a_swap(bus: Bus, folder: Path) -> None:
    curve = fitted("isotonic-2")
    async with running(settings_at(bus, folder)) as manager:
        assert manager.versions().calibration != curve.name
        send(bus, encode_release(curve))
        async with asyncio.timeout(SECONDS):
            while manager.versions().calibration != curve.name:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("change", [{"path": "recall+literal"}, {"components": {"heads": "heads-1"}}])
async def test_a_calibration_of_other_scores_is_left_alone(
    bus: Bus, folder: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """The worker has graph recall alone: neither the path nor the components are its own."""
    send(bus, encode_release(fitted("isotonic-3")))
    async with running(settings_at(bus, folder)) as manager:
        assert manager.versions().calibration == "isotonic-3"
        own = manager.revision()
        send(bus, encode_release(fitted("isotonic-4", **change)))
        async with asyncio.timeout(SECONDS):
            while manager.revision() == own:
                await asyncio.sleep(0.02)
        assert manager.versions().calibration != "isotonic-4"


async def test_a_calibration_that_is_withdrawn_counts_no_longer(bus: Bus, folder: Path) -> None:
    curve = fitted("isotonic-3")
    async with running(settings_at(bus, folder)) as manager:
        own = manager.versions().calibration
        for record, name in ((encode_release(curve), curve.name), (Record(release_key(curve).encode(), None), own)):
            send(bus, record)
            async with asyncio.timeout(SECONDS):
                while manager.versions().calibration != name:
                    await asyncio.sleep(0.02)


async def test_its_revision_differs_with_calibration_and_memory_and_never_raises(bus: Bus, folder: Path) -> None:
    curve = fitted("isotonic-3")
    correction = encode_record(Exemplar(id="a", text="Bees", rejected=("bees",)))
    assert ReleaseManager(settings_at(bus, folder)).revision() is None
    async with running(settings_at(bus, folder)) as manager:
        seen = [manager.revision()]
        assert seen == [manager.revision()]
        assert seen != [None]
        send(bus, encode_release(curve))
        async with asyncio.timeout(SECONDS):
            while manager.revision() in seen:
                await asyncio.sleep(0.02)
        seen.append(manager.revision())
        produce(bus.address, bus.names["exemplars"], [(correction.key, correction.value, [])])
        async with asyncio.timeout(SECONDS):
            while manager.revision() in seen:
                await asyncio.sleep(0.02)
    # The release in force has come to rest, as it does while it is replaced, or when it fails.
    assert manager.revision() is None


async def test_a_dropped_release_is_let_go_once_its_batches_are_done(bus: Bus, folder: Path) -> None:
    send(bus, encode_release(ReleaseRecord(release=SHIPPED)), encode_release(recorded(folder)))
    many = [Content(id=f"c{number}", title=f"Keeping bees, volume {number}") for number in range(100)]
    async with running(settings_at(bus, folder)) as manager:
        in_flight = asyncio.create_task(manager.tag(many))
        await asyncio.sleep(0)
        send(bus, active(SECOND), Record(SHIPPED.name.encode(), None))
        await until(manager, SECOND)
        results = await in_flight
        assert {one.versions.release for one in results if isinstance(one, TaggedContent)} == {SHIPPED.name}
        async with asyncio.timeout(SECONDS):
            while gauge("tagbus_releases_loaded") > 1:
                await asyncio.sleep(0.02)


async def test_a_store_that_stops_answering_is_waited_for(
    bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a store that fails after the gate opened, nothing ends: contents are to be tried again until it is back."""
    stores: dict[str, Failing] = {}

    async def opened(_: MemorySettings, kind: str, release: str, dimension: int, carried: Carried) -> Failing:
        stores[kind] = Failing(release, dimension, carried)
        return stores[kind]

    monkeypatch.setattr(memory, "open_store", opened)
    monkeypatch.setattr(manager_module, "REPORT_SECONDS", 0.01)
    bees = [Content(id="a", title="Bees in the city")]
    async with running(settings_at(bus, folder)) as manager:
        for store in stores.values():
            store.failures = math.inf
        async with asyncio.timeout(SECONDS):
            while stores["tags"].refused < 3:
                await asyncio.sleep(0.02)
        with pytest.raises(DependencyDown, match="the store does not answer"):
            await manager.tag(bees)
        send(bus, encode_release(ReleaseRecord(release=SHIPPED)))
        produce(bus.address, bus.names["tags"], [(b"law", None, [])])
        for store in stores.values():
            store.failures = 0
        assert isinstance((await manager.tag(bees))[0], TaggedContent)
        async with asyncio.timeout(SECONDS):
            while gauge("tagbus_taxonomy_tags") != 1:
                await asyncio.sleep(0.02)


class Looped(ExactStore):
    """A store that refers to itself, as asynchronous things easily do: only a round of garbage collection frees it."""

    def __init__(self, release: str, dimension: int, carried: Carried) -> None:
        super().__init__(release, dimension, carried)
        self.itself = self


async def test_a_dropped_releases_memory_is_freed(bus: Bus, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in memory is taken out of garbage collection; what is dropped must be found by it all the same."""
    stores: dict[str, list[ref[Looped]]] = {SHIPPED.name: [], SECOND: []}

    async def opened(_: MemorySettings, kind: str, release: str, dimension: int, carried: Carried) -> Looped:
        store = Looped(release, dimension, carried)
        stores[release].append(ref(store))
        return store

    monkeypatch.setattr(memory, "open_store", opened)
    send(bus, encode_release(ReleaseRecord(release=SHIPPED)), encode_release(recorded(folder)))
    async with running(settings_at(bus, folder)) as manager:
        send(bus, active(SECOND), Record(SHIPPED.name.encode(), None))
        await until(manager, SECOND)
        async with asyncio.timeout(SECONDS):
            while any(one() is not None for one in stores[SHIPPED.name]):
                await asyncio.sleep(0.02)
        assert [one() is not None for one in stores[SECOND]] == [True] * len(KINDS)
        assert gc.get_freeze_count() > 10_000, "the memory in force is out of garbage collection still"
