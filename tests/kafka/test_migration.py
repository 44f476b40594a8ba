"""Rollout and rollback of a release under load: three worker processes, one of them killed during the switch."""

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer

from tagbus.stream.app import assemble, filling
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import decode_tagged, encode_record
from tagbus.stream.contract.events import Content, Tag, TaggedContent
from tagbus.stream.contract.fields import Event
from tagbus.stream.kafka.message import record_of
from tagbus.stream.local.worker import LocalWorker
from tests.bus.harness import exactly_once, until_all_out
from tests.cli.harness import Cli, Slice, cut
from tests.conftest import Broker
from tests.releases import SHIPPED, Bus, make_release
from tests.support import consume_all, get, produce, unique, wait_until

pytestmark = pytest.mark.kafka

SECOND = "second-1"
NEW = Tag(id="new", name="gravitational lensing")
ASKED = "Gravitational lensing by galaxies"
A_SECOND = 60.0
TOLERANCE = 1e-4 + 1e-9
FAST = {
    "TAGBUS_ENCODER__THREADS": "1",
    "TAGBUS_BATCH__CONTENTS": "16",
    "TAGBUS_KAFKA__SESSION_SECONDS": "6",
    "TAGBUS_KAFKA__TRANSACTION_SECONDS": "10",
}


@dataclass
class Load:
    """Contents at a steady rate from a thread, until it is stopped; a few titles under ids of their own."""

    address: str
    topic: str
    titles: Sequence[str]
    sent: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        thread = threading.Thread(target=self._run, name="load", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(120)

    def _run(self) -> None:
        producer = Producer({"bootstrap.servers": self.address, "partitioner": "murmur2_random"})
        for number, title in enumerate(itertools.cycle(self.titles)):
            if self._stop.wait(1 / A_SECOND):
                break
            record = encode_record(Content(id=f"c{number}", title=title))
            producer.produce(self.topic, record.value, record.key)
            producer.poll(0)
            self.sent += 1
        assert producer.flush(30) == 0


@dataclass
class Fleet:
    """Three workers, one of which may be killed and started again."""

    settings: Settings
    folder: Path
    stack: ExitStack
    workers: list[LocalWorker] = field(default_factory=list)

    def start(self, instance: str) -> LocalWorker:
        own = self.settings.kafka.model_copy(update={"instance": instance})
        settings = self.settings.model_copy(update={"kafka": own})
        extra = FAST | {"TAGBUS_RELEASES__FOLDER": str(self.folder)}
        worker = self.stack.enter_context(LocalWorker(settings, extra))
        self.workers.append(worker)
        return worker

    def settled(self) -> bool:
        """All are ready and none waits for a release."""
        return all(get(worker.port, "/readyz") == (200, "ok\n") for worker in self.workers)

    def kill(self, worker: LocalWorker) -> None:
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.wait()


@dataclass(frozen=True)
class TaggedAgain:
    """Results made once more, by the release that they name and the taxonomy that they name."""

    slice_: Slice
    folders: Mapping[str, Path | None]

    async def of(self, name: str, tags: Sequence[Tag], titles: Sequence[str]) -> dict[str, TaggedContent]:
        base = Settings.model_construct()
        settings = base.model_copy(update={"encoder": base.encoder.model_copy(update={"folder": self.folders[name]})})
        async with assemble.in_process(settings) as stack:
            await filling.fill(stack.projection(), {"tags": tags, "exemplars": self.slice_.exemplars}, lambda _: None)
            found = await stack.tagger().tag([Content(id=title, title=title) for title in titles])
        assert all(isinstance(one, TaggedContent) for one in found), found
        return {one.id: one for one in found if isinstance(one, TaggedContent)}


def until_named(address: str, topic: str, release: str, count: int = 50, seconds: float = 60) -> None:
    """Wait for so many results of a release."""
    mark = f'"release":"{release}"'.encode()

    def enough(messages: list[Message]) -> bool:
        return sum(mark in (message.value() or b"") for message in messages) >= count

    consume_all(address, topic, until=enough, seconds=seconds)


def publish(address: str, topic: str, events: Sequence[Event]) -> None:
    produce(address, topic, [(one.key, one.value, []) for one in map(encode_record, events)])  # type: ignore[arg-type]


def ask(address: str, names: Mapping[str, str], title: str) -> TaggedContent:
    """The result of a content with this title, published now."""
    key = unique("asked")
    publish(address, names["content"], [Content(id=key, title=title)])

    def there(messages: list[Message]) -> bool:
        return any(message.key() == key.encode() for message in messages)

    found = consume_all(address, names["tagged"], until=there)
    result = decode_tagged(record_of(next(message for message in found if message.key() == key.encode())))
    assert isinstance(result, TaggedContent)
    return result


def first_tag(result: TaggedContent) -> str | None:
    return result.tags[0].id if result.tags else None


def assert_same(found: TaggedContent, expected: TaggedContent) -> None:
    """Score, similarity and confidence of each tag within 1e-4; the last places may go to tags of equal score."""
    here, there = ({tag.id: tag for tag in one.tags} for one in (found, expected))
    last = min((tag.score for tag in expected.tags), default=0.0)
    for tag in here.keys() ^ there.keys():
        assert abs((here.get(tag) or there[tag]).score - last) <= TOLERANCE, (found.id, tag)
    for tag in here.keys() & there.keys():
        for number in ("score", "confidence"):
            assert abs(getattr(here[tag], number) - getattr(there[tag], number)) <= TOLERANCE, (found.id, tag, number)
        pair = here[tag].evidence.similarity, there[tag].evidence.similarity
        assert (pair[0] is None) == (pair[1] is None), (found.id, tag)
        assert abs((pair[0] or 0) - (pair[1] or 0)) <= TOLERANCE, (found.id, tag)


async def assert_recomputed(address: str, names: Mapping[str, str], titles: Sequence[str], again: TaggedAgain) -> None:
    """Each result of the load is what the release that it names gives, with the taxonomy that it names."""
    messages = consume_all(address, names["tagged"])
    found = [one for one in map(decode_tagged, map(record_of, messages)) if isinstance(one, TaggedContent)]
    load = [one for one in found if one.id.startswith("c")]
    kinds: dict[tuple[str, bool], list[TaggedContent]] = defaultdict(list)
    for one in load:
        applied = sum(offset + 1 for offset in one.versions.taxonomy.values())
        kinds[one.versions.release, applied > len(again.slice_.tags)].append(one)
    assert {name for name, _ in kinds} == set(again.folders)
    for name in again.folders:
        assert sum(len(kinds[name, complete]) for complete in (True, False)) >= 50, name
    for (name, complete), every in kinds.items():
        expected = await again.of(name, (*again.slice_.tags, NEW) if complete else again.slice_.tags, titles)
        for one in every:
            assert_same(one, expected[titles[int(one.id[1:]) % len(titles)]])


def test_a_release_goes_live_under_load_and_back(kafka: Broker, tagbus: Cli, tmp_path: Path) -> None:
    """Given three workers under load, when a release is activated, a worker killed meanwhile, and the first release
    activated again, then no content is lost or doubled, each result is its release's, and no tag is forgotten."""
    slice_ = cut(tmp_path)
    place = make_release(tmp_path / "releases", SECOND)
    bus = Bus.made(kafka.address)
    publish(bus.address, bus.names["tags"], slice_.tags)
    publish(bus.address, bus.names["exemplars"], slice_.exemplars)
    titles = [content.title or content.text for content in slice_.contents]
    migrate(bus, place.parent, titles, tagbus)
    exactly_once(bus.address, bus.names)
    again = TaggedAgain(slice_, {SHIPPED.name: None, SECOND: place})
    asyncio.run(assert_recomputed(bus.address, bus.names, titles, again))


def migrate(bus: Bus, folder: Path, titles: Sequence[str], tagbus: Cli) -> None:
    """The story itself: forth and back, with a kill and a new tag, while contents come."""
    command = bus.command(folder)
    with ExitStack() as stack:
        fleet = Fleet(bus.settings, folder, stack)
        first, *_ = [fleet.start(instance) for instance in ("w1", "w2", "w3")]
        assert tagbus("release", "build", SECOND, settings=command).code == 0
        wait_until(fleet.settled, 90, "three workers that are ready")
        with Load(bus.address, bus.names["content"], titles).running() as load:
            until_named(bus.address, bus.names["tagged"], SHIPPED.name)
            assert tagbus("release", "activate", SECOND, settings=command).code == 0
            fleet.kill(first)
            fleet.start("w1")
            until_named(bus.address, bus.names["tagged"], SECOND)
            wait_until(fleet.settled, 120, "three workers that have gone over")
            assert ask(bus.address, bus.names, ASKED).versions.release == SECOND

            publish(bus.address, bus.names["tags"], [NEW])
            wait_until(lambda: first_tag(ask(bus.address, bus.names, ASKED)) == NEW.id, 120, "the new tag")
            assert tagbus("release", "activate", SHIPPED.name, settings=command).code == 0
            wait_until(lambda: ask(bus.address, bus.names, ASKED).versions.release == SHIPPED.name, 120, "the way back")
            wait_until(fleet.settled, 120, "three workers that have gone back")
            last = ask(bus.address, bus.names, ASKED)
            assert (last.versions.release, first_tag(last)) == (SHIPPED.name, NEW.id)
        assert load.sent > 100
        until_all_out(bus.address, bus.names, load.sent)
        assert [worker.stop() for worker in fleet.workers] == [0, 0, 0]
