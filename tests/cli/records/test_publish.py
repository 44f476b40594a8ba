"""`tagbus publish` and `retire` on Apache Kafka."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Message

from tagbus.stream.contract.codec import decode_decision, decode_tag, encode_record
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Tag
from tagbus.stream.contract.schema import EXAMPLES
from tagbus.stream.kafka.message import record_of
from tests.cli.harness import Cli, Slice, large, process
from tests.conftest import Broker
from tests.support import Layout, consume_all, fifo, unique

# Utils.murmur2 of the Java client on these keys, from its own test (kafka, UtilsTest.testMurmur2).
MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}
PARTITIONS = 7
TOPICS = (
    *("content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "releases"),
    *("feedback", "feedback_state", "feedback_dead_letters"),
)

THREE = b'{"id": "a", "text": "x"}\n\n{"id": "b", "text": "y"}\n{"id": "c", "text": "z"}\n'


def decision(message: Message) -> Decision:
    found = decode_decision(record_of(message))
    assert isinstance(found, Decision)
    return found


Make = Callable[[Mapping[str, Layout]], dict[str, str]]


def settings(kafka: Broker, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Settings of the command for topics of a test's own."""
    own = names or {name: unique(name) for name in TOPICS}
    return {
        "KAFKA__BROKERS": kafka.address,
        "TOPICS__PARTITIONS": str(PARTITIONS),
        **{f"TOPICS__{name.upper()}": topic for name, topic in own.items()},
    }


@pytest.fixture
def made(kafka: Broker, tagbus: Cli) -> dict[str, str]:
    """Settings whose topics `tagbus topics create` has made."""
    given = settings(kafka)
    assert tagbus("topics", "create", settings=given).code == 0
    return given


class TestPublish:
    def test_each_line_under_its_own_key(
        self, kafka: Broker, made: dict[str, str], tagbus: Cli, cutting: Slice
    ) -> None:
        for to, events in (("tags", cutting.tags), ("content", cutting.contents)):
            assert tagbus("publish", cutting.folder / f"{to}.jsonl", "--to", to, settings=made).code == 0
            found = consume_all(kafka.address, made[f"TOPICS__{to.upper()}"])
            expected = [encode_record(event) for event in events]
            assert {(message.key(), message.value()) for message in found} == {
                (record.key, record.value) for record in expected
            }
            assert len(found) == len(events)

    def test_a_key_lands_where_the_java_client_puts_it(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        lines = "".join(json.dumps({"id": key, "name": "n"}) + "\n" for key in MURMUR2)
        assert tagbus("publish", "-", "--to", "tags", stdin=lines.encode(), settings=made).code == 0
        found = {
            (message.key() or b"").decode(): message.partition()
            for message in consume_all(kafka.address, made["TOPICS__TAGS"])
        }
        assert found == {key: (value & 0x7FFFFFFF) % PARTITIONS for key, value in MURMUR2.items()}

    def test_nothing_is_published_when_a_line_is_wrong(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        answer = tagbus(
            "publish", "-", "--to", "tags", stdin=b'{"id": "a", "name": "n"}\n{"id": "b"}\n{', settings=made
        )
        assert answer.code == 3
        said = answer.err.splitlines()
        assert [line.split(": ")[1] for line in said[:-1]] == ["name", "value"]
        assert said[-1] == "tagbus: 2 lines are wrong, nothing was published"
        assert consume_all(kafka.address, made["TOPICS__TAGS"]) == []

    def test_it_says_how_many(self, made: dict[str, str], tagbus: Cli, cutting: Slice) -> None:
        answer = tagbus("publish", cutting.file, "--to", "content", settings=made)
        assert (answer.code, answer.out) == (0, "")
        assert answer.err == f"published {len(cutting.contents)} records to {made['TOPICS__CONTENT']}\n"
        nothing = tagbus("publish", "/dev/null", "--to", "content", settings=made)
        assert (nothing.code, nothing.err) == (0, f"published 0 records to {made['TOPICS__CONTENT']}\n")

    def test_a_fifo_is_published(self, kafka: Broker, made: dict[str, str], tagbus: Cli, tmp_path: Path) -> None:
        with fifo(tmp_path / "pipe", THREE) as path:
            answer = tagbus("publish", path, "--to", "content", settings=made)
        assert (answer.code, answer.err) == (0, f"published 3 records to {made['TOPICS__CONTENT']}\n")
        assert len(consume_all(kafka.address, made["TOPICS__CONTENT"])) == 3

    @pytest.mark.parametrize("words", ["/dev/stdin", "/dev/fd/0", "-"])
    def test_a_pipe_is_published(self, kafka: Broker, made: dict[str, str], words: str) -> None:
        answer = process("publish", words, "--to", "content", stdin=THREE, settings=made)
        assert (answer.code, answer.err) == (0, f"published 3 records to {made['TOPICS__CONTENT']}\n")
        assert len(consume_all(kafka.address, made["TOPICS__CONTENT"])) == 3

    def test_a_record_that_the_topic_does_not_take_is_named_and_nothing_is_published(
        self, kafka: Broker, made: dict[str, str], tagbus: Cli, tmp_path: Path
    ) -> None:
        path, topic = large(tmp_path / "three.jsonl"), made["TOPICS__CONTENT"]
        answer = tagbus("publish", path, "--to", "content", settings=made)
        assert answer.code == 3
        wrong, last = answer.err.splitlines()
        assert re.fullmatch(
            rf"{path}:2: value: a record of 15\d{{5}} bytes is wrong, expected at most 1048588 bytes, "
            rf"max\.message\.bytes of topic {topic}",
            wrong,
        )
        assert last == "tagbus: 1 line is wrong, nothing was published"
        assert consume_all(kafka.address, topic) == []

    def test_a_topic_that_takes_more_is_asked(self, kafka: Broker, topics: Make, tagbus: Cli, tmp_path: Path) -> None:
        names = topics({"content": (1, {"max.message.bytes": "3000000"})})
        answer = tagbus("publish", large(tmp_path / "three.jsonl"), "--to", "content", settings=settings(kafka, names))
        assert (answer.code, answer.err) == (0, f"published 3 records to {names['content']}\n")

    def test_where_the_size_is_not_known_before_it_says_which_lines_are_not_published(
        self, kafka: Broker, made: dict[str, str], tagbus: Cli, tmp_path: Path
    ) -> None:
        """The limit is one of compressed records, and lz4 cannot compress these."""
        path, topic = large(tmp_path / "three.jsonl"), made["TOPICS__CONTENT"]
        options = {"KAFKA__OPTIONS": '{"compression.type": "lz4", "batch.num.messages": "1"}'}
        answer = tagbus("publish", path, "--to", "content", settings=made | options)
        assert answer.code == 2
        count, last = answer.err.splitlines()
        kept = len(consume_all(kafka.address, topic))
        assert re.fullmatch(rf"published {kept} of 3 records to {topic}; not confirmed: {path}:\d(-\d)?", count)
        assert last == f"tagbus: not all records reached {topic}: Broker: Message size too large"

    def test_a_topic_that_is_not_there_is_the_users_mistake(self, kafka: Broker, tagbus: Cli) -> None:
        answer = tagbus("publish", "-", "--to", "tags", stdin=b'{"id": "a", "name": "n"}', settings=settings(kafka))
        assert answer.code == 2
        assert answer.one_line().endswith("does not exist; `tagbus topics create` creates it")

    def test_a_segment_of_knowledge(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        segment = b'{"id": "k1", "kind": "rule", "text": "Hives on roofs are urban beekeeping."}'
        assert tagbus("publish", "-", "--to", "knowledge", settings=made, stdin=segment).code == 0
        (message,) = consume_all(kafka.address, made["TOPICS__KNOWLEDGE"])
        assert (message.key(), json.loads(message.value() or b"")["kind"]) == (b"k1", "rule")


class TestExemplars:
    """Those of people are decisions, which the joiner makes exemplars of."""

    def test_people_s_are_bulk_decisions_that_replace_the_ones_before(
        self, kafka: Broker, made: dict[str, str], tagbus: Cli, cutting: Slice
    ) -> None:
        path = cutting.folder / "exemplars.jsonl"
        answer = tagbus("publish", path, "--to", "exemplars", settings=made)
        assert answer.code == 0
        assert answer.err.splitlines()[-1] == (
            f"published {len(cutting.exemplars)} records to {made['TOPICS__FEEDBACK']}"
        )
        assert consume_all(kafka.address, made["TOPICS__EXEMPLARS"]) == []
        found = [decision(message) for message in consume_all(kafka.address, made["TOPICS__FEEDBACK"])]
        assert {one.id: (one.title, one.text, one.accepted, one.rejected, one.scopes) for one in found} == {
            one.id: (one.title, one.text, one.accepted, one.rejected, one.scopes) for one in cutting.exemplars
        }
        assert {(one.mode, one.who, one.replaces) for one in found} == {("bulk", "publish", True)}
        # Published again, each counts again.
        tagbus("publish", path, "--to", "exemplars", "--who", "ann", settings=made)
        both = [decision(message) for message in consume_all(kafka.address, made["TOPICS__FEEDBACK"])]
        assert len({one.decision for one in both}) == len(both) == 2 * len(found)
        assert {one.who for one in both} == {"publish", "ann"}

    def test_the_machine_s_stay_what_they_are(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        lines = b'{"id": "a", "title": "x"}\n{"id": "b", "source": "machine", "title": "y", "accepted": ["t"]}'
        answer = tagbus("publish", "-", "--to", "exemplars", stdin=lines, settings=made)
        assert answer.err.splitlines() == [
            f"published 1 record to {made['TOPICS__FEEDBACK']}",
            f"published 1 record to {made['TOPICS__EXEMPLARS']}",
        ]
        (machine,) = consume_all(kafka.address, made["TOPICS__EXEMPLARS"])
        assert machine.key() == b"b/machine"

    def test_a_tag_that_is_accepted_and_rejected_is_refused(self, made: dict[str, str], tagbus: Cli) -> None:
        line = b'{"id": "a", "title": "x", "accepted": ["t", "t"], "rejected": ["t"]}'
        answer = tagbus("publish", "-", "--to", "exemplars", stdin=line, settings=made)
        assert answer.code == 3
        assert answer.err.splitlines()[0] == "-:1: rejected: 't' is wrong, expected no tag that is accepted too"

    def test_a_name_is_refused_where_nobody_decides(self, tagbus: Cli) -> None:
        answer = tagbus("publish", "-", "--to", "tags", "--who", "ann")
        assert answer.one_line() == "tagbus: --who ann has no effect with --to tags, expected --to exemplars"

    def test_decisions_are_published_as_they_are(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        line = encode_record(EXAMPLES["feedback"]).value or b""  # type: ignore[arg-type]
        assert tagbus("publish", "-", "--to", "feedback", stdin=line, settings=made).code == 0
        (message,) = consume_all(kafka.address, made["TOPICS__FEEDBACK"])
        assert (message.key(), message.value()) == (b"article-17", line)

    def test_a_people_s_exemplar_is_retired_with_all_decisions_on_its_content(
        self, kafka: Broker, made: dict[str, str], tagbus: Cli
    ) -> None:
        answer = tagbus("retire", "a/b/people", "--from", "exemplars", settings=made)
        assert (answer.code, answer.err) == (0, f"published a null to {made['TOPICS__FEEDBACK']}\n")
        (message,) = consume_all(kafka.address, made["TOPICS__FEEDBACK"])
        assert (message.key(), message.value()) == (b"a/b", None)


class TestRetire:
    @pytest.mark.parametrize(
        ("key", "word"),
        [("p1", "tags"), ("a/machine", "exemplars"), ("a", "feedback"), ("k1", "knowledge"), ("Größe", "content")],
    )
    def test_a_null_under_the_key(self, kafka: Broker, made: dict[str, str], tagbus: Cli, key: str, word: str) -> None:
        answer = tagbus("retire", key, "--from", word, settings=made)
        assert (answer.code, answer.err) == (0, f"published a null to {made[f'TOPICS__{word.upper()}']}\n")
        (message,) = consume_all(kafka.address, made[f"TOPICS__{word.upper()}"])
        assert (message.key(), message.value()) == (key.encode(), None)

    @pytest.mark.parametrize(
        ("key", "word", "expected"),
        [
            ("article-3", "exemplars", "expected `id/people` or `id/machine`"),
            ("", "tags", "expected a string of 1 to 256 characters"),
            ("x" * 257, "content", "expected a string of 1 to 256 characters"),
            ("\udcff", "content", "expected UTF-8"),
        ],
    )
    def test_a_key_that_no_record_can_have_is_refused(
        self, kafka: Broker, tagbus: Cli, key: str, word: str, expected: str
    ) -> None:
        answer = tagbus("retire", key, "--from", word, KAFKA__BROKERS=kafka.address)
        assert answer.code == 9
        assert expected in answer.one_line()

    def test_a_tag_in_favour_of_another(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        """It is published once more as it is, with its successors."""
        lines = (
            b'{"id": "a", "name": "bees", "scopes": ["news"]}\n{"id": "b", "name": "bees"}\n{"id": "c", "name": "c"}'
        )
        assert tagbus("publish", "-", "--to", "tags", stdin=lines, settings=made).code == 0

        answer = tagbus("retire", "a", "--from", "tags", "--replaced-by", "b", "--replaced-by", "c", settings=made)

        topic = made["TOPICS__TAGS"]
        assert (answer.code, answer.err) == (0, f"published 'a' to {topic}, replaced by 'b', 'c'\n")
        last = next(one for one in reversed(consume_all(kafka.address, topic)) if one.key() == b"a")
        assert decode_tag(record_of(last)) == Tag(id="a", name="bees", scopes=("news",), replaced_by=("b", "c"))

    def test_a_successor_that_fewer_contents_see_is_said(self, made: dict[str, str], tagbus: Cli) -> None:
        lines = b'{"id": "a", "name": "a"}\n{"id": "b", "name": "b", "scopes": ["news"]}\n{"id": "c", "name": "c"}'
        assert tagbus("publish", "-", "--to", "tags", stdin=lines, settings=made).code == 0
        answer = tagbus("retire", "a", "--from", "tags", "--replaced-by", "b", settings=made)
        assert answer.err.splitlines()[0] == (
            "note: 'b' is only for 'news': other contents that see 'a' get no tag in its place"
        )
        answer = tagbus("retire", "b", "--from", "tags", "--replaced-by", "c", settings=made)
        assert "note" not in answer.err

    def test_successors_that_would_not_count_are_refused(self, made: dict[str, str], tagbus: Cli) -> None:
        lines = b'{"id": "a", "name": "a"}\n{"id": "b", "name": "b", "replaced_by": ["c"]}\n{"id": "c", "name": "c"}'
        assert tagbus("publish", "-", "--to", "tags", stdin=lines, settings=made).code == 0
        topic = made["TOPICS__TAGS"]

        for key, successor, said in (
            ("a", "x", f"tagbus: --replaced-by: 'x' is not a tag on topic {topic}"),
            ("x", "a", f"tagbus: 'x' is not a tag on topic {topic}"),
            ("a", "b", "tagbus: --replaced-by: 'b' is retired itself, in favour of 'c'"),
            ("a", "a", "tagbus: replaced_by: a list of length 1 is wrong, expected ids of other tags"),
        ):
            answer = tagbus("retire", key, "--from", "tags", "--replaced-by", successor, settings=made)
            assert (answer.code > 0, answer.one_line()) == (True, said)
