"""Writers of a shared memory that overlap, read again, are killed, or rebuild it beside the one that readers see."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.index import bootstrap, snapshot
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.indexer import rebuilder
from tagbus.stream.memory import Point
from tagbus.stream.memory.kinds import KINDS
from tests.conftest import Broker
from tests.index.parts import Watched, encoder
from tests.index.sharing import SECONDS, opened, publish, retire, settings_at, states, until, writing, written
from tests.support import Layout, produce

T = TypeVar("T")
Topics = Callable[[Mapping[str, Layout]], dict[str, str]]


class Held(Watched):
    """Waits before it encodes, until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.asked.set()
        await self.go.wait()
        return await super().encode(texts)


async def test_reading_everything_again_shows_readers_no_older_state(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a topic that is not compacted yet: a changed tag, a retired one, one that came back."""
    monkeypatch.setattr(bootstrap, "CHUNK", 1)
    names, watched = topics({"tags": 1, "exemplars": 1}), Watched()
    for name in ("old", "new"):
        tag = encode_record(Tag(id="changed", name=name))
        produce(kafka.address, names["tags"], [(tag.key, tag.value, [])])
    publish(kafka, names["tags"], 2)
    retire(kafka, names["tags"], "t0")
    retire(kafka, names["tags"], "t1")
    publish(kafka, names["tags"], 1, first=1)
    seen: list[tuple[set[str], object]] = []
    memory = await opened(qdrant)

    async def look(*_: object) -> None:
        seen.append((await memory.tags.keys(), (await memory.tags.fetch(["changed"]))["changed"]["name"]))

    async with written(settings_at(kafka, names), qdrant):
        await look()
    for name in ("upsert", "delete"):
        monkeypatch.setattr(qdrant, name, watching_writes(getattr(qdrant, name), look))
    async with written(settings_at(kafka, names, tombstone_hours=1e-9), qdrant, watched):
        await look()
    assert [one for one in seen if one != ({"changed", "t1"}, "new")] == []
    assert watched.texts == 1, "the retired t0, which the store refuses"


def watching_writes(
    call: Callable[..., Awaitable[T]], look: Callable[[], Awaitable[None]]
) -> Callable[..., Awaitable[T]]:
    """The call, and a look at what readers see after it."""

    async def watched(*positional: object, **more: object) -> T:
        answer = await call(*positional, **more)
        await look()
        return answer

    return watched


async def test_of_two_writers_the_slower_one_sets_nothing_back(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has read 10 versions of a tag and its tombstone, but not encoded them, as another applies all and ends."""
    monkeypatch.setattr(bootstrap, "CHUNK", 5)
    names = topics({"tags": 1, "exemplars": 1})
    settings = settings_at(kafka, names)
    for version in range(10):
        tags = [encode_record(Tag(id=key, name=f"{key} {version}")) for key in ("kept", "retired")]
        produce(kafka.address, names["tags"], [(tag.key, tag.value, []) for tag in tags])
    retire(kafka, names["tags"], "retired")
    held = Held()
    slow = asyncio.create_task((await writing(settings, qdrant, held)).run())
    async with asyncio.timeout(SECONDS):
        await held.asked.wait()
        async with written(settings, qdrant):
            pass
        held.go.set()
        memory = await opened(qdrant)
        while held.texts < 2:
            await asyncio.sleep(0.01)
        assert await memory.tags.keys() == {"kept"}
        assert (await memory.tags.fetch(["kept"]))["kept"]["name"] == "kept 9"
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
    assert await memory.tags.keys() == {"kept"}
    assert (await memory.tags.fetch(["kept"]))["kept"]["name"] == "kept 9"


async def test_a_thousand_updates_of_one_tag_leave_one_point_the_last(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    names, watched = topics({"tags": 1, "exemplars": 1}), Watched()
    settings = settings_at(kafka, names)
    tags = [encode_record(Tag(id="one", name=f"version {number}")) for number in range(1_000)]
    async with written(settings, qdrant, watched) as follower:
        produce(kafka.address, names["tags"], [(tag.key, tag.value, []) for tag in tags])
        await until(lambda: follower.taxonomy() == {"0": 999})
        memory = await opened(qdrant)
        assert await memory.tags.count() == 1
        assert (await memory.tags.fetch(["one"]))["one"]["name"] == "version 999"
        assert watched.texts < 100, "one of each chunk is encoded"


async def rebuilt(settings: Settings, qdrant: AsyncQdrantClient, *, encoded: bool = False) -> int:
    """Rebuild the memory. Returns the number of encoded texts."""
    memory, watched = await opened(qdrant), Watched()
    follower = await rebuilder(settings, Projection(watched, memory), [memory], encoded=encoded)
    async with asyncio.timeout(SECONDS), snapshot.following(follower):
        pass
    return watched.texts


async def collections(qdrant: AsyncQdrantClient) -> set[str]:
    return {one.name for one in (await qdrant.get_collections()).collections}


async def test_a_rebuilt_memory_takes_the_place_of_the_old_one_and_takes_its_vectors_over(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings = settings_at(kafka, topics({"tags": 2, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 10)
    async with written(settings, qdrant):
        pass
    before, names = await states(qdrant), await collections(qdrant)
    memory = await opened(qdrant)
    (vector,) = await encoder().encode(["of no topic"])
    await memory.tags.upsert([Point("foreign", vector, {"name": "of no topic"})])
    await memory.tags.delete(["t3"])

    assert await rebuilt(settings, qdrant) == 1, "t3, whose vector was gone"

    after = await states(qdrant)
    assert await memory.tags.keys() == {f"t{n}" for n in range(10)}
    for kind in KINDS:
        old, new = before[kind], after[kind]
        assert old is not None
        assert new is not None
        assert new.build != old.build
        assert (new.complete, new.owner) == (True, old.owner)
    assert names.isdisjoint(await collections(qdrant))
    assert await rebuilt(settings, qdrant, encoded=True) == 10


async def test_readers_see_the_old_memory_until_the_new_one_is_complete(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 5)
    async with written(settings, qdrant):
        pass
    memory, fresh, held = await opened(qdrant), await opened(qdrant), Held()
    follower = await rebuilder(settings, Projection(held, fresh), [fresh], encoded=True)
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(SECONDS):
        await held.asked.wait()
        assert await memory.tags.count() == 5
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(await collections(qdrant)) == 2 * len(KINDS)


async def test_what_an_interrupted_rebuild_left_is_not_gone_on_with_and_goes_with_the_next_one(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 5)
    async with written(settings, qdrant):
        pass
    names, memory = await collections(qdrant), await opened(qdrant)
    await rebuilder(settings, Projection(Watched(), memory), [memory], encoded=False)
    assert names < await collections(qdrant)

    async with written(settings, qdrant) as follower:
        publish(kafka, settings.topics.tags, 1, first=5)
        await until(lambda: follower.taxonomy() == {"0": 5})
        assert await (await opened(qdrant)).tags.count() == 6
    await rebuilt(settings, qdrant)
    assert len(await collections(qdrant)) == len(KINDS)
    assert await (await opened(qdrant)).tags.count() == 6


async def test_another_installations_memory_is_not_rebuilt(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient
) -> None:
    settings, other = (settings_at(kafka, topics({"tags": 1, "exemplars": 1})) for _ in range(2))
    async with written(settings, qdrant):
        pass
    with pytest.raises(ReleaseMismatch, match=r"TAGBUS_MEMORY__NAMESPACE"):
        await rebuilt(other, qdrant)


@pytest.mark.parametrize("status", [507, 408])
async def test_a_server_that_is_full_or_slow_is_waited_for_and_nothing_is_lost(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It refuses three writes, of which it has applied one nevertheless."""
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    refusals = iter([False, True, False])
    upsert = qdrant.upsert

    async def refusing(*positional: Any, **more: Any) -> Any:
        applied = next(refusals, None)
        if applied is None or applied:
            answer = await upsert(*positional, **more)
        if applied is not None:
            raise UnexpectedResponse(status, "", b"", httpx.Headers())
        return answer

    async with written(settings, qdrant) as follower:
        monkeypatch.setattr(qdrant, "upsert", refusing)
        publish(kafka, settings.topics.tags, 5)
        retire(kafka, settings.topics.tags, "t0")
        await until(lambda: follower.taxonomy() == {"0": 5})
        assert next(refusals, "all were refused") == "all were refused"
        assert await (await opened(qdrant)).tags.keys() == {f"t{n}" for n in range(1, 5)}


async def test_a_key_that_may_only_read_ends_a_writer_with_its_name(
    kafka: Broker, topics: Topics, qdrant: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(kafka, topics({"tags": 1, "exemplars": 1}))
    publish(kafka, settings.topics.tags, 5)

    async def refused(*_: object, **__: object) -> None:
        raise UnexpectedResponse(403, "Forbidden", b"Write access to collection x is required", httpx.Headers())

    monkeypatch.setattr(qdrant, "upsert", refused)
    with pytest.raises(UserError, match=r"TAGBUS_MEMORY__API_KEY: .*Write access to collection x"):
        async with asyncio.timeout(SECONDS):
            await (await writing(settings, qdrant)).run()


async def test_a_writer_that_is_killed_in_mid_write_is_gone_on_from(
    kafka: Broker, topics: Topics, tmp_path: Path
) -> None:
    """Three times SIGKILL while it writes, over Qdrant's files in this folder; then nothing is lost or left over."""
    names = topics({"tags": 2, "exemplars": 1})
    settings = settings_at(kafka, names)
    publish(kafka, names["tags"], 120)
    code = f"""
import asyncio
from pathlib import Path
from qdrant_client import AsyncQdrantClient
from tagbus.stream.index import bootstrap
from tests.index.parts import at
from tests.index.sharing import writing
bootstrap.CHUNK = 10
async def main():
    qdrant = AsyncQdrantClient(path={str(tmp_path)!r})
    upsert = qdrant.upsert
    async def told(*positional, **more):
        print("writing", flush=True)
        answer = await upsert(*positional, **more)
        return answer
    qdrant.upsert = told
    follower = await writing(at({kafka.address!r}, {names!r}), qdrant)
    await follower.run()
asyncio.run(main())
"""
    for writes in (1, 3, 2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", code, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            for _ in range(writes):
                assert await process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
        retire(kafka, names["tags"], f"t{writes}")

    watched = Watched()
    client = AsyncQdrantClient(path=str(tmp_path))
    try:
        async with written(settings, client, watched):
            assert await (await opened(client)).tags.keys() == {f"t{n}" for n in range(120)} - {"t1", "t2", "t3"}
        assert watched.texts < 120, "what was written before is not encoded again"
    finally:
        await client.close()
