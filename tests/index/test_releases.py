"""Following `releases`: the callback runs once the topic is read to its end, then on each change."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.release import Active, Curve, ReleaseRecord, encode_release, release_key
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.index.releases import ReleaseFollower, Releases
from tests.conftest import Broker
from tests.support import Layout, produce, unique

pytestmark = pytest.mark.kafka

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
SHIPPED = ReleaseRecord(release=load_release(default_folder()))
SECOND = SHIPPED.model_copy(update={"release": SHIPPED.release.model_copy(update={"name": "second-1"})})
NOW = Active(release="second-1", time=datetime(2026, 1, 31, 9, 30, tzinfo=UTC))
SECONDS = 120.0


def send(settings: Settings, *records: Record) -> None:
    produce(settings.kafka.brokers, settings.topics.releases, [(one.key, one.value, []) for one in records])


@asynccontextmanager
async def followed(settings: Settings) -> AsyncIterator["asyncio.Queue[Releases]"]:
    """What it tells, while the block runs."""
    told: asyncio.Queue[Releases] = asyncio.Queue()
    task = asyncio.create_task(ReleaseFollower(settings, told.put_nowait).run())
    try:
        yield told
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_of(told: "asyncio.Queue[Releases]") -> Releases:
    async with asyncio.timeout(SECONDS):
        return await told.get()


@pytest.fixture
def settings(kafka: Broker, topics: Topics) -> Settings:
    base = Settings.model_construct()
    names = topics({"releases": (1, {"cleanup.policy": "compact"})})
    return base.model_copy(
        update={
            "kafka": base.kafka.model_copy(update={"brokers": kafka.address}),
            "topics": base.topics.model_copy(update=names),
        }
    )


async def test_without_the_topic_nobody_uses_releases(settings: Settings) -> None:
    absent = settings.topics.model_copy(update={"releases": unique("absent")})
    async with followed(settings.model_copy(update={"topics": absent})) as told:
        assert await next_of(told) == Releases()


async def test_an_empty_topic_is_told_at_once(settings: Settings) -> None:
    async with followed(settings) as told:
        assert await next_of(told) == Releases()


async def test_all_of_it_is_told_at_once_and_then_each_change(settings: Settings) -> None:
    send(settings, encode_release(SHIPPED), encode_release(SECOND), encode_release(NOW))
    async with followed(settings) as told:
        both = {one.release.name: one for one in (SHIPPED, SECOND)}
        assert await next_of(told) == Releases(both, NOW)
        back = NOW.model_copy(update={"release": SHIPPED.release.name})
        send(settings, encode_release(back))
        assert await next_of(told) == Releases(both, back)
        send(settings, Record(b"second-1", None), Record(b"active", None))
        found = await next_of(told)
        while found.active is not None:
            found = await next_of(told)
        assert found == Releases({SHIPPED.release.name: SHIPPED})


async def test_a_calibration_is_told_by_release_and_path(settings: Settings) -> None:
    curve = Curve(
        name="isotonic-1",
        release="second-1",
        path="recall",
        scores=(0.1, 0.5),
        probabilities=(0.2, 0.9),
        fitted_on=100,
        contents=10,
    )
    newer = curve.model_copy(update={"name": "isotonic-2"})
    ranked = curve.model_copy(update={"path": "recall+rank"})
    other = curve.model_copy(update={"release": "third-1"})
    send(settings, *map(encode_release, (curve, ranked, newer, other)))
    async with followed(settings) as told:
        found = await next_of(told)
        assert found.calibrations_of("second-1") == {"recall": newer, "recall+rank": ranked}
        send(settings, Record(release_key(newer).encode(), None))
        assert (await next_of(told)).calibrations_of("second-1") == {"recall+rank": ranked}


async def test_what_is_no_record_is_skipped_and_changes_nothing(settings: Settings) -> None:
    send(settings, encode_release(SHIPPED), Record(SHIPPED.release.name.encode(), b"{"), Record(b"active", b"[]"))
    async with followed(settings) as told:
        assert await next_of(told) == Releases({SHIPPED.release.name: SHIPPED})
