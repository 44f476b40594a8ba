"""Dead letters are replayed, changed contents sent again, a blocking record skipped: with workers, each once."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import pytest
from confluent_kafka import Message

from tagbus.stream.config import Settings
from tests.bus.harness import environment, event, events, exactly_once, inputs, running, settings, until_all_out
from tests.bus.taggers import Gated, Picky, Trivial
from tests.cli.harness import Cli
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce

pytestmark = pytest.mark.kafka

Names = dict[str, str]
Tagbus = Callable[..., str]
COUNT = 200


@pytest.fixture
def names(topics: Callable[[Mapping[str, Layout]], Names]) -> Names:
    """The topics of this test alone."""
    return topics({"content": 3, "tagged": 3, "dead_letters": 2, "exemplars": 2, "feedback": 1, "versions": 3})


@pytest.fixture
def given(kafka: Broker, names: Names) -> Settings:
    return settings(kafka.address, names, kafka={"session_seconds": 2})


@pytest.fixture
def tagbus(given: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tagbus:
    """A command as an operator calls it; returns the last line of what it says on standard error."""
    cli = Cli(monkeypatch, capsys)
    own = {name.removeprefix("TAGBUS_"): text for name, text in environment(given).items() if "TAGBUS_" in name}

    def call(*arguments: str) -> str:
        answer = cli(*arguments, settings=own)
        assert answer.code == 0, answer.err
        return answer.err.splitlines()[-1]

    return call


def keys(messages: Iterable[Message]) -> Counter[bytes | None]:
    return Counter(message.key() for message in messages)


def test_after_a_fix_the_dead_letters_become_tagged_each_once(
    kafka: Broker, names: Names, given: Settings, tagbus: Tagbus
) -> None:
    # Given a tagger that refuses some contents, one that can never be tagged, and an old version whose new one passes
    refused = {f"c{number}" for number in range(0, COUNT, 10)}
    produce(kafka.address, names["content"], events(COUNT))
    produce(kafka.address, names["content"], [(b"bad", b"\xff", []), (b"v", event("v", "bad", version=1), [])])
    produce(kafka.address, names["content"], [(b"v", event("v", "good", version=2), [])])
    with running(given, Picky(lambda content: content.id in refused or content.text == "bad")):
        until_all_out(kafka.address, names, COUNT + 3)
    exactly_once(kafka.address, names)
    # When the tagger is mended but for one, and they are sent back
    left_out = "; left out: 1 not asked for, 1 published since"
    assert tagbus("replay", "--reason", "encode") == f"to send back with --send: 20{left_out}"
    assert tagbus("replay", "--reason", "encode", "--send") == f"sent back: 20{left_out}"
    assert "sent back: 0" in tagbus("replay", "--reason", "encode", "--send")
    with running(given, Picky(lambda content: content.id == "c10")):
        until_all_out(kafka.address, names, COUNT + 3 + 20)
    # Then they are tagged, each once, and the one that failed again says how often it came back
    exactly_once(kafka.address, names)
    results = keys(consume_all(kafka.address, names["tagged"]))
    assert results == Counter({b"c%d" % number for number in range(COUNT)} - {b"c10"} | {b"v"})
    again = [message for message in consume_all(kafka.address, names["dead_letters"]) if message.key() == b"c10"]
    assert [dict(message.headers() or [])["tagbus.replays"] for message in again] == [b"0", b"1"]
    # When that is mended too
    assert tagbus("replay", "--reason", "encode", "--send").startswith("sent back: 1")
    with running(given, Trivial()):
        until_all_out(kafka.address, names, COUNT + 3 + 20 + 1)
    assert tagbus("replay", "--reason", "encode").startswith("to send back with --send: 0")
    assert keys(consume_all(kafka.address, names["tagged"]))[b"c10"] == 1
    exactly_once(kafka.address, names)


def test_after_the_taxonomy_changed_every_content_is_tagged_again_once(
    kafka: Broker, names: Names, given: Settings, tagbus: Tagbus
) -> None:
    # Given contents that are tagged, one of them withdrawn, one in two versions
    produce(kafka.address, names["content"], events(COUNT))
    produce(kafka.address, names["content"], [(b"c0", None, []), (b"c1", event("c1", "newer", version=7), [])])
    with running(given, Trivial()):
        until_all_out(kafka.address, names, COUNT + 2)
        # When they go through again while the worker runs
        assert tagbus("retag", "--since", "1h", "--send").startswith(f"sent again: {COUNT - 1}")
        until_all_out(kafka.address, names, COUNT + 2 + COUNT - 1)
    # Then each has one result more, none is set aside, and the withdrawn one stays withdrawn
    exactly_once(kafka.address, names)
    results = keys(consume_all(kafka.address, names["tagged"]))
    assert consume_all(kafka.address, names["dead_letters"]) == []
    assert {key: count for key, count in results.items() if count != 2} == {b"c1": 3}
    assert len(results) == COUNT
    last = [message for message in consume_all(kafka.address, names["tagged"]) if message.key() == b"c0"][-1]
    assert last.value() is None


def test_one_record_that_blocks_is_skipped_and_its_neighbours_are_tagged(
    kafka: Broker, names: Names, given: Settings, tagbus: Tagbus
) -> None:
    # Given a content that holds up its partition for ever, at the head of a batch
    produce(kafka.address, names["content"], events(20), 0)
    produce(kafka.address, names["content"], [(b"slow", event("slow"), []), *events(20, "d")], 0)
    alone = given.model_copy(update={"batch": given.batch.model_copy(update={"contents": 1, "drain_seconds": 0.5})})
    with running(alone, Gated(lambda content: content.id == "slow")):
        until_all_out(kafka.address, names, 20)
    # When it is skipped
    place = f"{names['content']}:0:20"
    words = f"{place} is set aside on {names['dead_letters']}; the group resumes at offset 21"
    assert tagbus("skip", place) == words
    with running(given, Trivial()):
        until_all_out(kafka.address, names, 41)
    # Then it alone is a dead letter
    exactly_once(kafka.address, names)
    (letter,) = consume_all(kafka.address, names["dead_letters"])
    assert letter.key() == b"slow"
    assert len(inputs(kafka.address, names)) == 41
