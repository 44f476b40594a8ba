"""`tagbus topics create`, `publish`, `retire` and `tail` on Apache Kafka."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tagbus.stream.contract.codec import dead_letter_headers, encode_record, source_headers
from tagbus.stream.contract.events import DeadLetter, Evidence, Neighbour, ScoredTag, TaggedContent, Versions
from tests.cli.harness import Cli, Slice, environment, objects
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, unique, wait_until

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
TOPICS = ("content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "releases")

RESULT = TaggedContent(
    id="article-17",
    tags=(
        ScoredTag(
            id="p1",
            name="bees \x1b[31mred",
            score=0.41,
            confidence=0.87,
            stage="recall",
            evidence=Evidence(
                similarity=0.62, votes=1, neighbours=(Neighbour(id="article-3", source="people", similarity=0.71),)
            ),
        ),
    ),
    versions=Versions(release="r", calibration="none", taxonomy={"0": 3}),
    path=("encode", "recall", "calibrate"),
)
LETTER = DeadLetter(
    topic="content", partition=0, offset=7, exception="Undecodable", message="value: '{' is wrong", stage="decode"
)

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


def configuration(kafka: Broker, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": kafka.address})
    found = admin.describe_configs([resource])[resource].result(30)
    return {name: entry.value for name, entry in found.items()}


class TestCreate:
    def test_the_memory_topics_are_compacted_and_the_others_kept_by_time(
        self, kafka: Broker, made: dict[str, str]
    ) -> None:
        for name in ("TAGS", "EXEMPLARS", "KNOWLEDGE"):
            found = configuration(kafka, made[f"TOPICS__{name}"])
            assert found["cleanup.policy"] == "compact"
            assert found["delete.retention.ms"] == "86400000"
        for name in ("VERSIONS", "RELEASES"):
            assert configuration(kafka, made[f"TOPICS__{name}"])["cleanup.policy"] == "compact"
        for name in ("CONTENT", "TAGGED", "DEAD_LETTERS"):
            assert configuration(kafka, made[f"TOPICS__{name}"])["cleanup.policy"] == "delete"

    def test_a_second_time_changes_nothing(self, made: dict[str, str], tagbus: Cli) -> None:
        answer = tagbus("topics", "create", settings=made)
        assert answer.code == 0
        assert [line.split(" ", 1)[1] for line in answer.err.splitlines()] == ["exists already"] * len(TOPICS)

    def test_it_says_what_it_made(self, kafka: Broker, tagbus: Cli) -> None:
        given = settings(kafka)
        answer = tagbus("topics", "create", settings=given)
        assert f"created {given['TOPICS__TAGS']} with {PARTITIONS} partitions" in answer.err.splitlines()

    @pytest.mark.parametrize(
        ("name", "value"), [("TOPICS__REPLICATION", "3"), ("TOPICS__CONTENT", "a name with spaces")]
    )
    def test_settings_that_the_broker_refuses_are_the_users_mistake(
        self, kafka: Broker, tagbus: Cli, name: str, value: str
    ) -> None:
        answer = tagbus("topics", "create", settings=(settings(kafka) | {name: value}))
        assert answer.code == 2
        assert "was not created: " in answer.err.splitlines()[-1]
        assert "Traceback" not in answer.err


class TestPublish:
    def test_each_line_under_its_own_key(
        self, kafka: Broker, made: dict[str, str], tagbus: Cli, cutting: Slice
    ) -> None:
        for to, events in (("tags", cutting.tags), ("exemplars", cutting.exemplars), ("content", cutting.contents)):
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

    def test_a_topic_that_is_not_there_is_the_users_mistake(self, kafka: Broker, tagbus: Cli) -> None:
        answer = tagbus("publish", "-", "--to", "tags", stdin=b'{"id": "a", "name": "n"}', settings=settings(kafka))
        assert answer.code == 2
        assert answer.one_line().endswith("does not exist; `tagbus topics create` creates it")

    def test_a_segment_of_knowledge(self, kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
        segment = b'{"id": "k1", "kind": "rule", "text": "Hives on roofs are urban beekeeping."}'
        assert tagbus("publish", "-", "--to", "knowledge", settings=made, stdin=segment).code == 0
        (message,) = consume_all(kafka.address, made["TOPICS__KNOWLEDGE"])
        assert (message.key(), json.loads(message.value() or b"")["kind"]) == (b"k1", "rule")


class TestRetire:
    @pytest.mark.parametrize(
        ("key", "word"), [("p1", "tags"), ("a/people", "exemplars"), ("k1", "knowledge"), ("Größe", "content")]
    )
    def test_a_null_under_the_key(self, kafka: Broker, made: dict[str, str], tagbus: Cli, key: str, word: str) -> None:
        assert tagbus("retire", key, "--from", word, settings=made).code == 0
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


class TestTail:
    @pytest.fixture
    def results(self, kafka: Broker, topics: Make) -> dict[str, str]:
        """Topics with two results, a withdrawal and a dead letter."""
        names = topics({"tagged": 1, "dead_letters": 1})
        source = source_headers("content", 0, 7)
        records = [encode_record(RESULT.model_copy(update={"id": name})) for name in ("article-17", "article-18")]
        produce(kafka.address, names["tagged"], [(record.key, record.value, source) for record in records])
        produce(kafka.address, names["tagged"], [(b"article-19", None, source)])
        produce(kafka.address, names["dead_letters"], [(b"k", b'{"\x1b', dead_letter_headers(LETTER))])
        return settings(kafka, names)

    def test_results_as_json(self, results: dict[str, str], tagbus: Cli) -> None:
        answer = tagbus("tail", "tagged", "--count", "2", "--as", "json", settings=results)
        assert answer.code == 0
        assert [TaggedContent.model_validate_json(line).id for line in answer.lines] == ["article-17", "article-18"]

    def test_results_as_people_read_them(self, results: dict[str, str], tagbus: Cli) -> None:
        shown = tagbus("tail", "-n", "3", settings=results).out
        for words in ("'article-17'", "0.87", "0.410", "like its name 0.62", "1 neighbour", "(article-3 0.71)"):
            assert words in shown
        assert "article-19 was withdrawn" in shown

    def test_content_cannot_write_to_the_terminal(self, results: dict[str, str], tagbus: Cli) -> None:
        shown = (
            tagbus("tail", "-n", "3", settings=results).out
            + tagbus("tail", "content.dlq", "-n", "1", settings=results).out
        )
        assert "\x1b" not in shown

    def test_dead_letters_with_their_reason(self, results: dict[str, str], tagbus: Cli) -> None:
        (letter,) = objects(tagbus("tail", "content.dlq", "-n", "1", "--as", "json", settings=results).out)
        assert letter == LETTER.model_dump() | {"value": "b'{\"\\x1b'"}
        shown = tagbus("tail", "content.dlq", "-n", "1", settings=results).out
        assert "content:0:7  Undecodable at decode: value: '{' is wrong" in shown

    def test_a_topic_that_is_not_there_is_the_users_mistake(self, kafka: Broker, tagbus: Cli) -> None:
        answer = tagbus("tail", settings=settings(kafka))
        assert answer.code == 2
        assert answer.one_line().endswith("does not exist; `tagbus topics create` creates it")

    def test_it_follows_until_it_is_interrupted(self, kafka: Broker, results: dict[str, str], tmp_path: Path) -> None:
        shown = tmp_path / "shown"
        with shown.open("wb") as out:
            tail = subprocess.Popen(
                [sys.executable, "-m", "tagbus.stream.cli", "tail", "--from", "latest", "--as", "json"],
                env=environment(results | {"KAFKA__OPTIONS": '{"statistics.interval.ms": "0"}'}),
                stdout=out,
                stderr=subprocess.PIPE,
            )
        record = encode_record(RESULT.model_copy(update={"id": "later"}))

        def seen() -> bool:
            """Where `latest` begins is known to the reader alone, so results come until one shows."""
            produce(kafka.address, results["TOPICS__TAGGED"], [(record.key, record.value, [])])
            return b"later" in shown.read_bytes()

        wait_until(seen, 30, "a result that came after the start")
        assert b"article-17" not in shown.read_bytes()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130
        assert tail.stderr is not None
        assert tail.stderr.read() == b""
        tail.stderr.close()


def test_offsets_of_a_group_are_never_touched(kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
    """`tail` looks and takes no part: the group of the workers stays as it is."""
    write_and_look = tagbus("publish", "-", "--to", "content", stdin=b'{"id": "a", "text": "x"}', settings=made)
    assert write_and_look.code == 0
    produce(kafka.address, made["TOPICS__TAGGED"], [(b"a", None, [])])
    tagbus("tail", "-n", "1", settings=made | {"KAFKA__GROUP": "watched"})
    admin = AdminClient({"bootstrap.servers": kafka.address})
    groups = {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    assert not groups & {"watched", "watched-reader"}
