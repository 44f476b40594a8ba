"""`tagbus tail` on Apache Kafka."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tagbus.stream.cli.records.tail import follow
from tagbus.stream.config import KafkaSettings, Settings
from tagbus.stream.contract.codec import dead_letter_headers, encode, encode_record, source_headers
from tagbus.stream.contract.events import DeadLetter, Evidence, Neighbour, ScoredTag, TaggedContent, Versions
from tagbus.stream.errors import TopicRecreated
from tagbus.stream.kafka.identity import TopicIds
from tagbus.stream.local.mock import MockCluster
from tests.cli.harness import Cli, environment, objects
from tests.cli.records.test_publish import settings
from tests.conftest import Broker
from tests.support import Layout, produce, wait_until

Make = Callable[[Mapping[str, Layout]], dict[str, str]]

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

    def test_decisions_that_were_set_aside(self, kafka: Broker, topics: Make, tagbus: Cli) -> None:
        names = topics({"feedback_dead_letters": 1})
        letter = LETTER.model_copy(update={"topic": "feedback"})
        produce(kafka.address, names["feedback_dead_letters"], [(b"k", b"{", dead_letter_headers(letter))])
        shown = tagbus("tail", "feedback.dlq", "-n", "1", settings=settings(kafka, names)).out
        assert "feedback:0:7  Undecodable at decode: value: '{' is wrong" in shown

    def test_a_withdrawal_as_json_carries_its_id(self, results: dict[str, str], tagbus: Cli) -> None:
        answer = tagbus("tail", "-n", "3", "--as", "json", settings=results)
        assert json.loads(answer.lines[-1]) == {"id": "article-19", "withdrawn": True}

    def test_a_result_is_one_line_with_the_fields_of_a_newer_contract(
        self, kafka: Broker, results: dict[str, str], tagbus: Cli
    ) -> None:
        newer = json.loads(encode(RESULT)) | {"mood": "good"}
        produce(kafka.address, results["TOPICS__TAGGED"], [(b"article-17", json.dumps(newer, indent=2).encode(), [])])
        answer = tagbus("tail", "-n", "4", "--as", "json", settings=results)
        assert json.loads(answer.lines[3]) == newer

    @pytest.mark.parametrize(
        ("word", "value", "headers", "reason"),
        [
            (
                "content.dlq",
                b"{}",
                [("__connect.errors.topic", b"orders")],
                "__streams.errors.topic: (missing) is wrong",
            ),
            ("content.dlq", None, [], "__streams.errors.topic: (missing)"),
            ("tagged", b'{"order":7}', [], "id: (missing)"),
            ("tagged", b"\x1b[31m\n", [], "value: b'\\x1b[31m"),
        ],
    )
    def test_a_record_of_another_program_is_shown_and_ends_nothing(
        self,
        kafka: Broker,
        topics: Make,
        tagbus: Cli,
        word: str,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        reason: str,
    ) -> None:
        # Given a record that is not of tagbus, and one behind it that is
        names = topics({"tagged": 1, "dead_letters": 1})
        name = names["tagged" if word == "tagged" else "dead_letters"]
        result = encode_record(RESULT)
        own = (b"k", b"{", dead_letter_headers(LETTER)) if word != "tagged" else (result.key, result.value, [])
        produce(kafka.address, name, [(b"x", value, headers), own])
        # Then a person reads which one it is, and the next one after it
        answer = tagbus("tail", word, "-n", "2", settings=settings(kafka, names))
        assert answer.code == 0
        assert answer.lines[0].startswith(f"{name}:0:0  not from tagbus: {reason}")
        assert "Undecodable at decode" in answer.out or "article-17" in answer.out
        # And a program gets a line of JSON for each
        foreign, mine = objects(tagbus("tail", word, "-n", "2", "--as", "json", settings=settings(kafka, names)).out)
        assert foreign["record"] == f"{name}:0:0"
        assert str(foreign["error"]).startswith(f"not from tagbus: {reason}")
        assert str(foreign["error"]).count(" is wrong, ") == 1
        assert mine.get("id", mine.get("exception")) in {"article-17", "Undecodable"}

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

        wait_until(seen, 120, "a result that came after the start")
        assert b"article-17" not in shown.read_bytes()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(120) == 130
        assert tail.stderr is not None
        assert tail.stderr.read() == b""
        tail.stderr.close()


def test_a_topic_that_is_created_again_ends_it(mock_kafka: MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may receive nothing of the new one."""
    mock_kafka.topic("tagged", 1)
    produce(mock_kafka.address, "tagged", [(b"a", None, [])])
    recreated: list[str] = []
    monkeypatch.setattr(TopicIds, "recreated", lambda _: recreated)
    shown = follow(Settings(kafka=KafkaSettings(brokers=mock_kafka.address)), "tagged", "earliest")
    assert next(shown).key() == b"a"
    recreated.append("tagged")
    with pytest.raises(TopicRecreated, match="topic tagged was deleted and created again"):
        next(shown)


def test_offsets_of_a_group_are_never_touched(kafka: Broker, topics: Make, tagbus: Cli) -> None:
    """`tail` looks and takes no part: the group of the workers stays as it is."""
    names = topics({"tagged": 1})
    produce(kafka.address, names["tagged"], [(b"a", None, [])])
    tagbus("tail", "-n", "1", settings=settings(kafka, names) | {"KAFKA__GROUP": "watched"})
    admin = AdminClient({"bootstrap.servers": kafka.address})
    groups = {group.group_id for group in admin.list_consumer_groups().result(120).valid}
    assert not groups & {"watched", "watched-reader"}
