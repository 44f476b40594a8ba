"""The builder's snapshot for workers: points, and the offsets to resume from."""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Knowledge, Tag
from tagbus.stream.index import snapshot
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Report
from tagbus.stream.index.snapshot import Origin
from tagbus.stream.kafka import clients
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.memory import ExactStore, Memory, exact_memory, memory_of
from tagbus.stream.memory.hnsw import HnswStore
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tests.conftest import Broker
from tests.index.parts import ORIGIN, Failing, Watched, at, encoder, memory, origin, record
from tests.memory.listing import listed
from tests.support import Layout, create_topics, produce, wait_until

Topics = Callable[[Mapping[str, Layout]], dict[str, str]]
TAGS = [Tag(id=f"t{number}", name=f"subject {number}") for number in range(5)]
WRITTEN = snapshot.Current(release="r", folder="f", time=1.0, positions=(), origin=ORIGIN)
PLACES = {("tags", 0): 7, ("exemplars", 0): 3}
SETTINGS = Settings.model_construct()
SECONDS = 120.0


async def filled() -> Memory:
    made = memory()
    await Projection(encoder(), made).apply([record(tag) for tag in TAGS])
    return made


async def test_a_memory_is_taken_over_with_its_offsets(tmp_path: Path) -> None:
    old, new = await filled(), memory()
    await snapshot.save(tmp_path, old, PLACES, ORIGIN)

    assert await snapshot.load(tmp_path, [new], SETTINGS, origin) == PLACES

    vectors = await encoder().encode(["subject 3"])
    assert await listed(new.tags, vectors, 5) == await listed(old.tags, vectors, 5)
    assert await new.tags.keys() == {tag.id for tag in TAGS}
    assert await new.exemplars.count() == 0


async def test_segments_of_knowledge_are_taken_over_with_their_validity(tmp_path: Path) -> None:
    old, new = memory(), memory()
    segments = [
        Knowledge(id="old", kind="news", text="subject 3", valid_until=datetime(2026, 1, 1, tzinfo=UTC)),
        Knowledge(id="rule", kind="rule", text="subject 3"),
    ]
    await Projection(encoder(), old).apply([record(one) for one in segments])
    await snapshot.save(tmp_path, old, {**PLACES, ("knowledge", 0): 2}, ORIGIN)

    assert await snapshot.load(tmp_path, [new], SETTINGS, origin) == {**PLACES, ("knowledge", 0): 2}

    store, vectors = new.stores["knowledge"], await encoder().encode(["subject 3"])
    assert await store.keys() == {"old", "rule"}
    [hits] = await listed(store, vectors, 5, None, datetime(2026, 1, 1, tzinfo=UTC))
    assert [hit.key for hit in hits] == ["rule"]


async def test_the_embedded_store_takes_it_over_too(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_edge")
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    release = encoder().release
    new = await memory_of(lambda _, carried: EmbeddedStore.temporary(release.name, release.dimension, carried))
    assert await snapshot.load(tmp_path, [new], SETTINGS, origin) == PLACES
    assert await new.tags.count() == len(TAGS)
    await new.close()


async def test_an_index_is_taken_over_and_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a snapshot of stores with an index, when a worker takes it over, then no vector is added to an index."""
    release = encoder().release
    old, new = (exact_memory(release.name, release.dimension, HnswStore) for _ in range(2))
    await Projection(encoder(), old).apply([record(tag) for tag in TAGS])
    await snapshot.save(tmp_path, old, PLACES, ORIGIN)

    monkeypatch.setattr(HnswStore, "_add", None)
    assert await snapshot.load(tmp_path, [new], SETTINGS, origin) == PLACES

    assert isinstance(new.tags, HnswStore)
    assert len(new.tags._index) == len(TAGS)
    monkeypatch.undo()
    # And what comes later is added to it.
    await Projection(encoder(), new).apply([record(Tag(id="later", name="a later subject"))])
    assert len(new.tags._index) == len(TAGS) + 1


@pytest.mark.parametrize("answered", [0, 1])
async def test_a_store_that_fails_meanwhile_is_waited_for(tmp_path: Path, answered: int) -> None:
    """Given a store that fails when it is asked whether it is empty, or when it is filled, it is filled later."""
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    release = encoder().release
    tags = Failing(release.name, release.dimension)
    tags.passes, tags.failures = answered, 2

    assert await snapshot.load(tmp_path, [Memory({**memory().stores, "tags": tags})], SETTINGS, origin) == PLACES

    assert await tags.count() == len(TAGS)


async def test_where_nothing_was_left_all_is_read(tmp_path: Path) -> None:
    assert await snapshot.load(tmp_path / "absent", [memory()], SETTINGS, origin) is None


async def test_a_memory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    own = memory()
    await Projection(encoder(), own).apply([record(Tag(id="own", name="own"))])
    assert await snapshot.load(tmp_path, [own], SETTINGS, origin) is None
    assert await own.tags.keys() == {"own"}


async def test_one_older_than_tombstones_spares_the_encoding_and_all_is_read(tmp_path: Path) -> None:
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    soon = SETTINGS.model_copy(update={"memory": SETTINGS.memory.model_copy(update={"tombstone_hours": 1e-9})})
    new = memory()
    assert await snapshot.load(tmp_path, [new], soon, origin) is None
    assert await new.tags.count() == len(TAGS)


async def test_offsets_of_other_topics_are_of_no_use(tmp_path: Path) -> None:
    await snapshot.save(tmp_path, await filled(), {("elsewhere", 0): 7}, ORIGIN)
    assert await snapshot.load(tmp_path, [memory()], SETTINGS, origin) is None


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (Origin(cluster="c2", topics=ORIGIN.topics), "it is of cluster 'c1', this is 'c2'"),
        (
            Origin(cluster="c1", topics={**ORIGIN.topics, "tags": "a2"}),
            "topic tags was created again: its id is 'a2', it was 'a1'",
        ),
        (Origin(cluster="c1", topics={"tags": "a1"}), "it holds topic 'exemplars', which is not there"),
    ],
)
async def test_one_of_other_topics_is_not_used_and_the_reason_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, now: Origin, reason: str
) -> None:
    """Given offsets that are in range by chance, none of the snapshot's points comes into memory."""
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    own = memory()

    assert await snapshot.load(tmp_path, [own], SETTINGS, lambda _: now) is None

    assert await own.empty()
    (line,) = caplog.messages
    assert line == f"the snapshot in {tmp_path} is not used, reading and encoding everything: {reason}"


@pytest.mark.parametrize(
    "now",
    [
        Origin(cluster="c1", topics={"tags": "", "exemplars": ""}),
        Origin(cluster="c1", topics={**ORIGIN.topics, "knowledge": "k1"}),
    ],
)
async def test_an_unknown_id_and_a_topic_that_is_new_do_not_matter(tmp_path: Path, now: Origin) -> None:
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    assert await snapshot.load(tmp_path, [memory()], SETTINGS, lambda _: now) == PLACES


async def test_one_that_does_not_say_its_topics_is_none(tmp_path: Path) -> None:
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    file = tmp_path / snapshot.CURRENT
    fields = json.loads(file.read_text())
    del fields["origin"]
    file.write_text(json.dumps(fields))
    own = memory()
    assert await snapshot.load(tmp_path, [own], SETTINGS, origin) is None
    assert await own.empty()


async def test_a_folder_that_two_clusters_share_brings_back_no_tag_of_the_other(
    mock_kafka: MockCluster, tmp_path: Path
) -> None:
    """Given six tags on topics of the same names, and a snapshot of five others, all six are in memory and no other."""
    settings = at(mock_kafka.address, {"tags": "tags", "exemplars": "exemplars"})
    for name in ("tags", "exemplars"):
        mock_kafka.topic(name, 1)
    send(settings, [Tag(id=f"own{number}", name=f"own subject {number}") for number in range(6)])
    with MockCluster() as other:
        for name in ("tags", "exemplars"):
            other.topic(name, 1)
        of = snapshot.origin(at(other.address, {"tags": "tags", "exemplars": "exemplars"}))
    await snapshot.save(tmp_path, await filled(), {("tags", 0): 5, ("exemplars", 0): 0}, of)
    own = memory()
    async with asyncio.timeout(SECONDS), snapshot.caught_up(tmp_path, settings, Projection(encoder(), own), [own]):
        assert await own.tags.keys() == {f"own{number}" for number in range(6)}


async def test_topics_that_were_seen_first_stay_those_of_the_snapshot(mock_kafka: MockCluster) -> None:
    """What a builder read before a topic was created again is not of the new one; one that is added later is named."""
    for name in ("tags", "exemplars"):
        mock_kafka.topic(name, 1)
    settings = at(mock_kafka.address, {"tags": "tags", "exemplars": "exemplars"})
    seen = snapshot.origin(settings, Origin(cluster="before", topics={"tags": "a1"}))
    assert seen.topics == {"tags": "a1", "exemplars": "", "knowledge": ""}


@pytest.mark.parametrize("made", [ExactStore, HnswStore])
async def test_a_damaged_one_is_not_used(tmp_path: Path, made: type[ExactStore]) -> None:
    """And nothing of it is left in memory: the rows that were whole have no place in an index."""
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    (points,) = tmp_path.glob("*/tags/points.jsonl")
    points.write_bytes(points.read_bytes()[:-4])
    own = exact_memory(encoder().release.name, encoder().release.dimension, made)
    assert await snapshot.load(tmp_path, [own], SETTINGS, origin) is None
    assert await own.tags.count() == 0
    await Projection(encoder(), own).apply([record(tag) for tag in TAGS])
    assert await own.tags.count() == len(TAGS)


@pytest.mark.parametrize("time", [-1.0, 1e12, 1e300])
def test_a_time_that_is_no_date_makes_it_unusable(tmp_path: Path, time: float) -> None:
    (tmp_path / snapshot.CURRENT).write_text(WRITTEN.model_copy(update={"time": time}).model_dump_json())
    assert snapshot.current(tmp_path) is None


async def test_offsets_that_are_no_json_are_not_used_and_written_anew(tmp_path: Path) -> None:
    (tmp_path / snapshot.CURRENT).write_text("{")
    assert await snapshot.load(tmp_path, [memory()], SETTINGS, origin) is None
    await snapshot.save(tmp_path, await filled(), PLACES, ORIGIN)
    assert await snapshot.load(tmp_path, [memory()], SETTINGS, origin) == PLACES


async def test_the_one_before_stays_for_those_that_read_it_and_no_more(tmp_path: Path) -> None:
    made = await filled()
    folders = []
    for _ in range(3):
        await snapshot.save(tmp_path, made, PLACES, ORIGIN)
        found = snapshot.current(tmp_path)
        assert found is not None
        folders.append(found.folder)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set(folders[1:])


@pytest.mark.kafka
async def test_a_worker_reads_on_from_the_snapshot_and_encodes_only_what_is_new(
    kafka: Broker, topics: Topics, tmp_path: Path
) -> None:
    settings = at(kafka.address, topics({"tags": 1, "exemplars": 1}))
    send(settings, TAGS)
    first = memory()
    reached: dict[tuple[str, int], int] = {}

    async def tell(report: Report) -> None:
        reached.update(report.next)

    async with (
        asyncio.timeout(SECONDS),
        snapshot.caught_up(None, settings, Projection(encoder(), first), [first], tell),
    ):
        await snapshot.save(tmp_path, first, reached, snapshot.origin(settings))
    send(settings, [Tag(id="later", name="later")])
    produce(kafka.address, settings.topics.tags, [(b"t0", None, [])])

    watched, second = Watched(), memory()
    async with asyncio.timeout(SECONDS), snapshot.caught_up(tmp_path, settings, Projection(watched, second), [second]):
        assert await second.tags.keys() == {"t1", "t2", "t3", "t4", "later"}
    assert watched.texts == 1


@pytest.mark.kafka
async def test_a_topic_that_was_created_again_is_read_whole(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    """Given a snapshot of five tags, and a new topic with six others, whose offsets include those of the snapshot."""
    settings = at(kafka.address, topics({"tags": 1, "exemplars": 1}))
    tags = settings.topics.tags
    places = {(tags, 0): 5, (settings.topics.exemplars, 0): 0}
    await snapshot.save(tmp_path, await filled(), places, snapshot.origin(settings))
    admin = clients.admin(settings.kafka)
    admin.delete_topics([tags])[tags].result(SECONDS)
    wait_until(lambda: tags not in snapshot.origin(settings).topics, SECONDS, "the topic to be gone")
    create_topics(kafka.address, {tags: 1})
    send(settings, [Tag(id=f"own{number}", name=f"own subject {number}") for number in range(6)])
    new = memory()
    async with asyncio.timeout(SECONDS), snapshot.caught_up(tmp_path, settings, Projection(encoder(), new), [new]):
        assert await new.tags.keys() == {f"own{number}" for number in range(6)}


@pytest.mark.kafka
async def test_offsets_out_of_range_are_no_end_all_is_read(kafka: Broker, topics: Topics, tmp_path: Path) -> None:
    """Given topics that were recreated since, points of the snapshot that are not on them are swept."""
    settings = at(kafka.address, topics({"tags": 1, "exemplars": 1}))
    send(settings, TAGS[:2])
    far = {(settings.topics.tags, 0): 1000, (settings.topics.exemplars, 0): 1000}
    await snapshot.save(tmp_path, await filled(), far, snapshot.origin(settings))
    new = memory()
    async with asyncio.timeout(SECONDS), snapshot.caught_up(tmp_path, settings, Projection(encoder(), new), [new]):
        assert await new.tags.keys() == {"t0", "t1"}


def send(settings: Settings, tags: list[Tag]) -> None:
    records: list[Record] = [encode_record(tag) for tag in tags]
    produce(settings.kafka.brokers, settings.topics.tags, [(one.key, one.value, []) for one in records])
