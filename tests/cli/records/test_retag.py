"""`tagbus retag` on Apache Kafka: which contents are sent again, with the real encoder."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from confluent_kafka import Message

from tagbus.stream.bus.process.dead_letters import REPLAY_SOURCE
from tagbus.stream.cli.records.retag import RETAG
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Content, Degraded, Evidence, ScoredTag, Tag, TaggedContent, Versions
from tests.cli.harness import Answer, Cli
from tests.cli.records.test_publish import settings
from tests.conftest import Broker
from tests.support import ANY_TIME, MICROSECONDS, Layout, consume_all, produce

BEES = Tag(id="bees", name="Honey bees", aliases=("beekeeping",))
CHESS = Tag(id="chess", name="Chess")


class Bus:
    """Topics of a test's own, and how to put on them what editors, producers and workers would have."""

    def __init__(self, address: str, names: dict[str, str], tagbus: Cli) -> None:
        self.address = address
        self.names = names
        self.tagbus = tagbus

    def content(self, *records: Record, partition: int = 0, milliseconds: int | None = None) -> None:
        given = [(r.key, r.value, list(r.headers)) for r in records]
        produce(self.address, self.names["content"], given, partition, milliseconds)  # type: ignore[arg-type]

    def tags(self, *tags: Tag) -> None:
        produce(self.address, self.names["tags"], [(tag.id.encode(), encode_record(tag).value, []) for tag in tags])

    def retire(self, tag: Tag) -> None:
        produce(self.address, self.names["tags"], [(tag.id.encode(), None, [])])

    def result(self, content: str, *tags: Tag, degraded: Sequence[Degraded] = ()) -> None:
        found = tuple(
            ScoredTag(id=tag.id, name=tag.name, score=0.5, confidence=0.5, stage="recall", evidence=Evidence())
            for tag in tags
        )
        versions = Versions(release="r", calibration="none", taxonomy={})
        record = encode_record(
            TaggedContent(id=content, tags=found, versions=versions, path=(), degraded=tuple(degraded))
        )
        produce(self.address, self.names["tagged"], [(record.key, record.value, [])])

    def retag(self, *arguments: str) -> Answer:
        return self.tagbus("retag", *arguments, settings=settings(Broker(self.address, ""), self.names))

    def again(self) -> list[Message]:
        """What came through again."""
        found = consume_all(self.address, self.names["content"])
        return [message for message in found if RETAG in dict(message.headers() or [])]


@pytest.fixture
def bus(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], tagbus: Cli) -> Bus:
    return Bus(kafka.address, topics({"content": (2, ANY_TIME), "tagged": 1, "tags": 1}), tagbus)


def record(name: str, text: str = "Some text.", headers: Sequence[tuple[str, bytes]] = (), **more: object) -> Record:
    made = encode_record(Content.model_validate({"id": name, "text": text, **more}))
    return Record(made.key, made.value, tuple(headers))


class TestSince:
    def test_the_newest_event_of_each_content_goes_through_again(self, bus: Bus) -> None:
        newest = record("b", "newer", [("trace", b"1"), (REPLAY_SOURCE, b"x:0:1"), (RETAG, b"before")])
        keyless = Record(None, record("c").value)
        bus.content(record("a"), record("b"), record("gone"), newest, Record(b"gone", None), Record(b"d", b"{"))
        bus.content(keyless, partition=1)
        # A dry run counts and names some, and sends nothing
        answer = bus.retag("--since", "1h")
        assert (answer.code, len(bus.again())) == (0, 1)
        assert answer.out.splitlines() == ["a  Some text.", "b  newer", "c  Some text."]
        assert answer.err.startswith("to send again with --send: 3 (since ")
        # Sent, each is what it was, in its partition, and says why it comes
        answer = bus.retag("--since", "1h", "--send")
        assert answer.err.startswith("sent again: 3 (since ")
        sent = {message.key(): message for message in bus.again() if dict(message.headers() or [])[RETAG] != b"before"}
        assert {key: message.partition() for key, message in sent.items()} == {b"a": 0, b"b": 0, None: 1}
        assert sent[b"b"].value() == newest.value
        headers = sent[b"b"].headers() or []
        assert headers[:-1] == [("trace", b"1")]
        assert headers[-1][0] == RETAG
        assert str(headers[-1][1]).startswith("b'since 20")

    def test_what_came_before_is_left_out(self, bus: Bus) -> None:
        bus.content(record("a"))
        assert bus.retag("--since", "2099-01-31T09:30:00Z").err.startswith("to send again with --send: 0")

    def test_a_stale_event_is_not_the_newest(self, bus: Bus) -> None:
        timed = record("b", time="2026-01-02T00:00:00Z")
        bus.content(record("a", "newest", version=3), record("a", "stale", version=2), timed)
        bus.content(Record(b"c", None), record("c", time="2020-01-02T00:00:00Z"))
        bus.retag("--since", "1h", "--send")
        assert [message.value() for message in bus.again()] == [
            record("a", "newest", version=3).value,
            timed.value,
        ]

    def test_nor_is_one_that_its_withdrawal_made_stale(self, bus: Bus) -> None:
        bus.content(record("a", version=7), Record(b"a", None), record("a", version=3), record("a", version=7))
        bus.content(record("b", version=7), record("b", "no version"), record("b", version=3), partition=1)
        bus.retag("--since", "1h", "--send")
        assert [message.value() for message in bus.again()] == [record("b", "no version").value]

    def test_a_record_time_in_microseconds_counts_as_none(self, bus: Bus) -> None:
        bus.content(Record(b"a", None), Record(b"b", None), record("c"), milliseconds=MICROSECONDS)
        bus.content(record("b", time="2026-01-02T00:00:00Z"))
        answer = bus.retag("--since", "1h")
        assert answer.code == 0
        assert answer.out.splitlines() == ["c  Some text.", "b  Some text."]


class TestTag:
    def test_contents_that_it_concerns_by_name_or_by_likeness(self, bus: Bus) -> None:
        # Given a tag, contents that are like it, and results that name it or did before
        bus.tags(CHESS, BEES)
        bus.content(record("like", "Honey bees and their keepers"), record("unlike", "Tax law of Norway"))
        bus.content(record("named", "Tax law of Sweden"), record("once", "Tax law of Denmark"), partition=1)
        bus.content(record("gone", "Bees in winter"), Record(b"gone", None))
        bus.result("named", BEES, CHESS)
        bus.result("once", BEES)
        bus.result("once", CHESS)
        # Then those of which it is true now go through again
        answer = bus.retag("--tag", "bees", "--send")
        assert answer.err == "sent again: 2 (tag bees)\n"
        assert {message.key() for message in bus.again()} == {b"like", b"named"}
        assert {dict(message.headers() or [])[RETAG] for message in bus.again()} == {b"tag bees"}

    def test_contents_that_do_not_see_the_tag_are_left_out(self, bus: Bus) -> None:
        """Except those whose result names it: it may have been visible to them."""
        bus.tags(BEES.model_copy(update={"scopes": ("tenant-7",)}))
        like = "Honey bees and their keepers"
        bus.content(record("all", like), record("other", like, scopes=("tenant-8",)))
        bus.content(record("own", like, scopes=("tenant-7", "news")), record("named", like))
        bus.result("named", BEES)
        assert bus.retag("--tag", "bees", "--send").err == "sent again: 2 (tag bees)\n"
        assert {message.key() for message in bus.again()} == {b"own", b"named"}

    def test_the_likeness_is_what_recall_asks_for(self, bus: Bus) -> None:
        bus.tags(BEES)
        bus.content(record("like", "Honey bees and their keepers"))
        given = settings(Broker(bus.address, ""), bus.names) | {"RECALL__C2T_THRESHOLD": "0.99"}
        assert bus.tagbus("retag", "--tag", "bees", settings=given).err.startswith("to send again with --send: 0")

    def test_of_a_retired_tag_those_whose_result_names_it(self, bus: Bus) -> None:
        bus.tags(BEES)
        bus.retire(BEES)
        bus.content(record("like", "Honey bees"), record("named", "Tax law of Sweden"))
        bus.result("named", BEES)
        answer = bus.retag("--tag", "bees")
        assert answer.out == "named  Tax law of Sweden\n"
        assert (
            answer.err.splitlines()[0]
            == "bees is not in force: only contents whose latest result names it are affected"
        )

    def test_a_tag_that_nobody_knows_is_the_users_mistake(self, bus: Bus) -> None:
        answer = bus.retag("--tag", "b\x1bes")
        assert answer.code == 2
        assert "'b\\x1bes' is not a tag on topic" in answer.one_line()


def test_degraded_contents_are_those_whose_latest_result_lacks_a_stage(bus: Bus) -> None:
    lacking = [Degraded(stage="judge", reason="budget")]
    bus.content(*(record(name) for name in ("never", "still", "mended")))
    bus.result("never", BEES)
    bus.result("still", BEES, degraded=lacking)
    bus.result("mended", BEES, degraded=lacking)
    bus.result("mended", BEES)
    assert "1 (degraded)" in bus.retag("--degraded").err
    assert bus.retag("--degraded", "--send").code == 0
    (sent,) = bus.again()
    assert sent.key() == b"still"
    assert dict(sent.headers() or [])[RETAG] == b"degraded"


def test_content_cannot_write_to_the_terminal(bus: Bus) -> None:
    bus.content(record("a\x1b[31m", "\x1b[31mred\n" * 50))
    answer = bus.retag("--since", "1h")
    assert "\x1b" not in answer.out
    assert len(answer.out.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--since", "1h", "--tag", "bees"], ["--degraded", "--tag", "bees"]],
    ids=["none", "two", "another two"],
)
def test_one_of_the_three_is_needed(tagbus: Cli, arguments: list[str]) -> None:
    answer = tagbus("retag", *arguments)
    assert answer.code == 2
    assert answer.one_line() == "tagbus: expected one of --since, --tag and --degraded"
