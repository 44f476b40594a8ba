"""The Faust app: `tagged` to the rows of contents, and their changes to the rows of tags.

    tagged ─► contents (table) ─► GROUP-changes, keyed by tag ─► tags (table)

At least once, made idempotent by the rows (contents.py, tags.py). A batch is acknowledged once the brokers have
confirmed every record that it wrote, to changelogs and to the topic of changes. After a failure nothing is committed.
"""

import asyncio
import logging
import time
import weakref
from collections import defaultdict
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from aiokafka.partitioner import murmur2
from faust.streams import Stream, _current_event
from faust.types import EventT, StreamT, TopicT
from yarl import URL

from tagbus.stream import telemetry
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record, Tombstone
from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.errors import DependencyDown, Fatal, UserError
from tagbus.stream.views.contents import (
    Change,
    ContentRow,
    Latest,
    Version,
    before_offset,
    changes,
    is_forgotten,
    latest_of,
    with_version,
)
from tagbus.stream.views.lag import Lag
from tagbus.stream.views.records import CHANGES, Groups, by_partition, decoded, sliced
from tagbus.stream.views.security import credentials, servers
from tagbus.stream.views.tags import Limits, TagRow, apply, trim
from tagbus.stream.views.transport import App, CommittedConsumer, ConfirmedTable, Tables

log = logging.getLogger(__name__)


class Views:
    """The app and its tables. Raises UserError for unsupported security settings."""

    def __init__(self, settings: Settings, folder: Path, partitions: int) -> None:
        """`partitions`: of each of its topics. `folder`: of the tables."""
        self._partitions = partitions
        own, kafka = settings.views, settings.kafka
        self._settings = own
        self._limits = Limits.of(own)
        self._stall = kafka.session_seconds / 2
        self._turned = time.monotonic()
        self.app = App(
            own.group,
            broker=servers(kafka),
            broker_credentials=credentials(kafka),
            broker_client_id=f"tagbus-{kafka.instance}",
            broker_session_timeout=kafka.session_seconds,
            broker_heartbeat_interval=min(3.0, kafka.session_seconds / 3),
            broker_max_poll_interval=max(kafka.poll_seconds, kafka.session_seconds),
            broker_commit_interval=1.0,
            consumer_auto_offset_reset="earliest",
            consumer_group_instance_id=kafka.instance if kafka.membership == "static" else None,
            producer_acks=-1,
            producer_max_request_size=own.row_bytes + 1_000_000,
            producer_request_timeout=kafka.transaction_seconds,
            consumer_max_fetch_size=own.row_bytes + 1_000_000,
            processing_guarantee="at_least_once",
            store="rocksdb://",
            datadir=str(folder),
            Table=ConfirmedTable,
            TableManager=Tables,
            table_standby_replicas=0,
            # `tagbus topics create` alone creates topics.
            topic_disable_leader=True,
            topic_allow_declare=False,
            web_enabled=False,
            canonical_url=own.url,
            stream_buffer_maxsize=4 * own.batch,
        )
        self.app.collecting_seconds = own.batch_seconds
        self._url_shared, self._served = 0, False
        self._lags = {settings.topics.tagged: Lag("contents"), own.changes: Lag("tags")}
        tagged = self._topic(settings.topics.tagged)
        self._changes = self._topic(own.changes)
        self.contents = self._table("contents", own.content_changelog)
        self.tags = self._table("tags", own.tag_changelog)
        self.app.agent(tagged, name="contents")(self._on_tagged)
        self.app.agent(self._changes, name="tags")(self._on_changes)
        self.app.finalize()

    @property
    def problem(self) -> BaseException | None:
        """The error that ended it."""
        return self.app.failed or (self.app.crash_reason if self.app.crashed else None)

    @property
    def settled(self) -> bool:
        """Whether its partitions, possibly none, are restored."""
        return bool(self.app.tables.actives_ready) and not self.app.rebalancing and not self.app.in_recovery

    def owner(self, table: ConfirmedTable, key: bytes) -> URL | None:
        """The replica that owns a key; None while unknown.

        Faust's own router asks its producer for the partition, which knows only the topics that it has written to.
        """
        topic = table.changelog_topic.get_topic_name()
        partition = (murmur2(key) & 0x7FFFFFFF) % self._partitions
        for address, held in self.app.router.table_metadata(table.name).items():
            if partition in held.get(topic, ()):
                return URL(address)
        return None

    def turn(self) -> None:
        """Called periodically: the event loop turns. Raises UserError if another replica of the group advertises the
        same address: requests for the keys of the two would not find their owner."""
        self._turned = time.monotonic()
        self._show_lag()
        if self._served:
            return
        # Read twice: the client's thread changes one after the other.
        self._url_shared = self._url_shared + 1 if self._shares_its_url() else 0
        if self._url_shared > 1:
            url = self._settings.url
            raise UserError(
                f"views.advertised: another replica of {self._settings.group} advertises {url} too; "
                "give each an address of its own, TAGBUS_VIEWS__ADVERTISED=http://host:port"
            )
        self._served = self.settled and not self._url_shared

    def _shares_its_url(self) -> bool:
        """Faust tells each replica the owners of partitions, by address: of two at one address it reports the last."""
        topic = self.contents.changelog_topic.get_topic_name()
        told = {url: set(held.get(topic, ())) for url, held in self.app.router.table_metadata("contents").items()}
        own = {tp.partition for tp in self.app.assignor.assigned_actives() if tp.topic == topic}
        return bool(told) and (
            told.get(str(self.app.conf.canonical_url)) != own
            or set().union(*told.values()) != set(range(self._partitions))
        )

    def _show_lag(self) -> None:
        consumer = self.app.consumer
        if isinstance(consumer, CommittedConsumer):
            standings = consumer.standings(self._lags)
            for topic, lag in self._lags.items():
                lag.show({tp.partition: one for tp, one in standings.items() if tp.topic == topic})

    def _topic(self, name: str) -> TopicT:
        """A topic of raw bytes: Faust would decode JSON, and stop at a record that is not JSON."""
        return self.app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    def _table(self, name: str, changelog: str) -> ConfirmedTable:
        table = self.app.Table(name, key_type=bytes, value_type=bytes, changelog_topic=self._topic(changelog))
        if not isinstance(table, ConfirmedTable):
            raise TypeError(f"{table} does not report when its records are confirmed")
        return table

    async def _on_tagged(self, stream: StreamT[bytes]) -> None:
        async for events in self._batches(stream):
            await self._finish(self._tell(events))

    async def _on_changes(self, stream: StreamT[bytes]) -> None:
        async for events in self._batches(stream):
            await self._finish(self._apply(events))

    def _batches(self, stream: StreamT[bytes]) -> AsyncGenerator[Sequence[EventT[bytes]], None]:
        return cast(Stream[bytes], stream).take_events(self._settings.batch, self._settings.batch_seconds)

    async def _finish(self, work: Coroutine[None, None, None]) -> None:
        """Finish a batch safely: Faust acknowledges it however its agent exits, even if it is stopped or fails."""
        task = asyncio.create_task(work)
        self.app.working.add(task)
        task.add_done_callback(self.app.working.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if task.cancelled():
                self._fail(DependencyDown("the brokers did not confirm a batch before the producer stopped"))
            elif (error := task.exception()) is not None:
                self._fail(error)
            raise
        except Exception as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        if self.app.failed is None:
            self.app.failed = error

    async def _tell(self, events: Sequence[EventT[bytes]]) -> None:
        """Apply results to the rows of contents, and send their changes to the topic of changes."""
        rest = by_partition(events)
        while rest:
            self._check_owned()
            rest = await self._deliver(rest)

    async def _deliver(self, groups: Groups) -> Groups:
        """The same for as many results as their rows have room for. Returns the others."""
        told: dict[str, list[Change]] = defaultdict(list)
        done: dict[int, Sequence[EventT[bytes]]] = {}
        for partition, group in groups.items():
            with _current(group[0]):
                done[partition] = group[: self._read(partition, group, told)]
        sent = [
            await self._changes.send(key=tag.encode(), value=value)
            for tag, found in told.items()
            for value in sliced(found, self._settings.row_bytes)
        ]
        await asyncio.gather(*sent, *self.contents.take_sent())
        for group in done.values():
            with _current(group[0]):
                self._forget_withdrawn(group)
        await asyncio.gather(*self.contents.take_sent())
        telemetry.VIEWS_APPLIED.labels("contents").inc(sum(map(len, done.values())))
        rest = {partition: group[len(done[partition]) :] for partition, group in groups.items()}
        return {partition: group for partition, group in rest.items() if group}

    def _read(self, partition: int, group: Sequence[EventT[bytes]], told: dict[str, list[Change]]) -> int:
        """The number of results that were applied: fewer than all where the row of a content would hold too many
        versions whose changes are not delivered. The first one always is, so that there is an end."""
        rows: dict[bytes, ContentRow] = {}
        sizes: dict[bytes, int] = {}
        # A batch begins once the changes of those before it are delivered.
        delivered, most = group[0].message.offset - 1, self._settings.row_bytes // 2
        for read, event in enumerate(group):
            message = event.message
            found = decoded(Record(message.key, message.value))
            if found is None:
                continue
            content = found.key if isinstance(found, Tombstone) else found.id
            key = content.encode()
            row = rows.get(key) or self._content(key)
            before = before_offset(row, message.offset)
            if before is None:
                continue
            after = self._latest(row, before, found, message.offset, int(message.timestamp * 1000))
            version = Version(offset=message.offset, latest=after)
            longer = with_version(row, version, delivered)
            if longer is not row:
                sizes[key] = sizes[key] + version.size if key in sizes else longer.size
                if read and sizes[key] > most:
                    break
            rows[key] = longer
            for tag, change in changes(content, partition, message.offset, before.latest, after):
                told[tag].append(change)
        else:
            read = len(group)
        for key, row in rows.items():
            self.contents[key] = row.to_json()
        return read

    def _latest(
        self, row: ContentRow, before: Version, found: TaggedContent | Tombstone, offset: int, tagged: int
    ) -> Latest | None:
        known = next((one for one in row.versions if one.offset == offset), None)
        if known is not None:
            return known.latest
        if isinstance(found, Tombstone):
            return None
        return latest_of(found, tagged, before.latest, self._settings.least_confidence)

    def _content(self, key: bytes) -> ContentRow:
        stored = self.contents.get(key)
        return ContentRow() if stored is None else ContentRow.model_validate_json(stored)

    def _forget_withdrawn(self, group: Sequence[EventT[bytes]]) -> None:
        """Delete the row of a withdrawn content once the changes of its withdrawal are delivered."""
        delivered = group[-1].message.offset
        for key in {event.message.key for event in group if event.message.value is None}:
            if key is None:
                continue
            stored = self.contents.get(key)
            if stored is not None and is_forgotten(ContentRow.model_validate_json(stored), delivered):
                del self.contents[key]

    async def _apply(self, events: Sequence[EventT[bytes]]) -> None:
        """Apply changes to the rows of tags."""
        self._check_owned()
        for group in by_partition(events).values():
            with _current(group[0]):
                self._rewrite(group)
        await asyncio.gather(*self.tags.take_sent())
        telemetry.VIEWS_APPLIED.labels("tags").inc(len(events))

    def _rewrite(self, group: Sequence[EventT[bytes]]) -> None:
        rows: dict[bytes, TagRow] = {}
        for event in group:
            key, value = event.message.key or b"", event.message.value or b"[]"
            row = rows.get(key)
            if row is None:
                stored = self.tags.get(key)
                row = rows[key] = TagRow() if stored is None else TagRow.model_validate_json(stored)
            found = CHANGES.validate_json(value)
            new = sum([apply(row, change, self._limits) for change in found])
            telemetry.VIEWS_REPEATED.inc(len(found) - new)
        # Even an unchanged row: the changelog of this partition may not have it yet.
        for key, row in rows.items():
            trim(row, self._limits)
            self.tags[key] = row.to_json()

    def _check_owned(self) -> None:
        """Stop after a long suspension, or when the partitions are given away: another replica may own them, and this
        one would write after its successor. And after a failure: what is before this batch may not be delivered."""
        if self.app.failed is not None:
            raise Fatal("a batch before this one failed")
        if self.app.given_away:
            raise Fatal("a batch came after its partitions were given away: another replica may own them")
        stalled = time.monotonic() - self._turned
        if stalled > self._stall:
            raise Fatal(f"this process stood still for {stalled:.0f} s: another may own its partitions")


@contextmanager
def _current(event: EventT[bytes]) -> Iterator[None]:
    """Set the current event: tables take their partition from it, and for a batch it is the last one."""
    token = _current_event.set(weakref.ref(event))
    try:
        yield
    finally:
        _current_event.reset(token)
