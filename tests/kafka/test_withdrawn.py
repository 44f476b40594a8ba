"""A withdrawn content, on Apache Kafka: afterwards no memory, cache or rebuilt memory holds its text."""

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, FunctionType, ModuleType

import pytest

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.memory import Memory, memory_of
from tagbus.stream.memory.qdrant.embedded import EmbeddedStore
from tests.bus.harness import Running, event, exactly_once, running, settings, until_all_out
from tests.conftest import Broker
from tests.index.parts import encoder, memory
from tests.kafka.service import Service
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
Open = Callable[[], Memory]
COMPACT: Layout = (1, {"cleanup.policy": "compact"})
SECONDS = 120.0
# Put together here, so that no constant of this file is what the test looks for.
SECRET = "".join(["zanzi", "barian", "marmalade"])


@pytest.fixture(params=["exact", "embedded"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """A memory; opened again it is the same one where it outlives its process."""
    if request.param == "exact":
        return memory
    release = encoder().release

    async def stores() -> Memory:
        return await memory_of(
            lambda kind, carried: EmbeddedStore.open(tmp_path / kind, release.name, release.dimension, carried)
        )

    return lambda: asyncio.run(stores())


def holds(roots: Sequence[object], word: str) -> bool:
    """Whether any text or bytes that can be reached from `roots` has the word in it."""
    seen, left = set[int](), list(roots)
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, ModuleType | FunctionType | FrameType | type):
            continue
        seen.add(id(one))
        if (isinstance(one, str) and word in one) or (isinstance(one, bytes) and word.encode() in one):
            return True
        left.extend(gc.get_referents(one))
    return False


def keys(run: Running, kept: Memory) -> set[str]:
    """What the memory of a running worker holds of contents."""
    return asyncio.run_coroutine_threadsafe(kept.exemplars.keys(), run.worker._loop).result(SECONDS)


def test_nothing_of_it_is_left(kafka: Broker, topics: Make, tmp_path: Path, opened: Open) -> None:
    names = topics(
        {"content": 1, "tagged": 1, "dead_letters": 1, "feedback": 1}
        | {"exemplars": COMPACT, "tags": COMPACT, "versions": COMPACT}
    )
    given = settings(kafka.address, names, tagger={"write_back": 0.0})
    tags = [encode_record(Tag(id=f"t{n}", name=name)) for n, name in enumerate(["marmalade", "islands", "ships"])]
    produce(kafka.address, names["tags"], [(one.key, one.value, []) for one in tags])
    # Given a content that is in memory from people and, written back, from the machine
    people = encode_record(Exemplar(id="a", title=SECRET, text=SECRET, accepted=("t0",)))
    produce(kafka.address, names["exemplars"], [(people.key, people.value, [])])
    kept = opened()
    service = Service(given, kept)
    with running(given, service, service.gate) as run:
        run.until_ready()
        service.passes.clear()
        produce(kafka.address, names["content"], [(b"a", event("a", SECRET), []), (b"b", event("b", "Ships."), [])])
        # (The check can fail: while it is tagged the worker holds it.)
        wait_until(lambda: holds([run.worker], SECRET), SECONDS, "a worker with its text")
        service.passes.set()
        until_all_out(kafka.address, names, 2)
        wait_until(lambda: {"a/people", "a/machine"} <= keys(run, kept), SECONDS, "the exemplars in memory")
        # When it is withdrawn
        produce(kafka.address, names["content"], [(b"a", None, [])])
        until_all_out(kafka.address, names, 3)
        wait_until(lambda: keys(run, kept) == {"b/machine"}, SECONDS, "a memory without it")
        # Then nothing that the worker holds has its text, nor the tags of it
        wait_until(lambda: not holds([run.worker, service], SECRET), SECONDS, "a worker without its text")
        asyncio.run_coroutine_threadsafe(kept.close(), run.worker._loop).result(SECONDS)
    exactly_once(kafka.address, names)
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    last = {message.key(): message.value() for message in consume_all(kafka.address, names["tagged"])}
    assert (last[b"a"], last[b"b"] is not None) == (None, True)
    # And neither has a rebuilt memory, nor one that continues
    for again in (memory(), opened()):
        asyncio.run(_rebuilt(given, again))
        asyncio.run(again.close())


async def _rebuilt(given: Settings, into: Memory) -> None:
    follower = Follower(given, Projection(encoder(), into))
    following = asyncio.create_task(follower.run())
    async with asyncio.timeout(SECONDS):
        await follower.ready.wait()
    assert await into.exemplars.keys() == {"b/machine"}
    assert not holds([follower, into], SECRET)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
