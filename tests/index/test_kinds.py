"""A new kind of memory: described here, registered by one line, and filled, followed and saved like the others."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from prometheus_client import Gauge

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, Tombstone, encode, parse
from tagbus.stream.contract.fields import Event, Id
from tagbus.stream.index import snapshot
from tagbus.stream.index.apply import MemoryRecord, Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.memory.kinds import KINDS, EventKind
from tests.conftest import Broker
from tests.index.parts import ORIGIN, Watched, at, memory, origin, running, tombstone
from tests.support import Layout, produce

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]


class Toy(Event):
    """An event that memory knows nothing of."""

    id: Id
    words: str
    colour: str = ""


def decode_toy(record: Record) -> Toy | Tombstone:
    return Tombstone((record.key or b"").decode()) if record.value is None else parse(record.value, Toy)


TOYS = EventKind(
    name="toys",
    model=Toy,
    named=lambda topics: str(getattr(topics, "toys", "toys")),
    decode=decode_toy,
    key=lambda toy: toy.id,
    text=lambda _, toy: toy.words,
    payload=lambda toy: {"colour": toy.colour},
    gauge=Gauge("tagbus_memory_toys", "Toys in memory", registry=None),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "toys", TOYS)


def record(toy: Toy) -> MemoryRecord:
    return MemoryRecord("toys", Record(toy.id.encode(), encode(toy)), "toys:0:0")


BALL = Toy(id="ball", words="a red ball", colour="red")
KITE = Toy(id="kite", words="a kite in the wind")


async def test_its_records_become_points_and_leave() -> None:
    store = memory()
    projection = Projection(Watched(), store)

    kept = await projection.apply([record(BALL), record(KITE), MemoryRecord("toys", Record(b"x", b"{"), "toys:0:2")])

    assert kept == projection.empty() | {"toys": {"ball", "kite", "x"}}
    toys = store.stores["toys"]
    assert (await toys.fetch(["ball"]))["ball"]["colour"] == "red"
    await projection.apply([tombstone("toys", "ball")])
    assert await toys.keys() == {"kite"}
    await projection.sweep({"toys": set()})
    assert await store.empty()


async def test_it_is_in_the_snapshot(tmp_path: Path) -> None:
    settings = Settings.model_construct()
    store = memory()
    await Projection(Watched(), store).apply([record(BALL)])
    places = {(kind.topic(settings.topics), 0): 1 for kind in KINDS.values()}
    await snapshot.save(tmp_path, store, places, ORIGIN)

    again = memory()

    assert await snapshot.load(tmp_path, [again], settings, origin) == places
    assert await again.stores["toys"].keys() == {"ball"}


@pytest.mark.kafka
async def test_its_topic_is_followed(kafka: Broker, topics: Topics) -> None:
    names = topics({"tags": 1, "exemplars": 1, "toys": 1})
    settings = at(kafka.address, names)
    produce(kafka.address, names["toys"], [(b"ball", encode(BALL), [])])
    store = memory()

    async with running(Follower(settings, Projection(Watched(), store))) as follower:
        await follower.ready.wait()

        assert await store.stores["toys"].keys() == {"ball"}
