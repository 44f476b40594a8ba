"""`tagbus validate`, `asyncapi`, `schema` and `config`."""

import json
from pathlib import Path

import jsonschema
import pytest

from tagbus.stream.app.data.examples import example
from tests.cli.harness import Cli, large
from tests.support import fifo

HOSTILE = [
    b'{"id": "a", "title": "Bees"}',
    b"{",
    b"",
    b'{"id": 7, "text": ["x"]}',
    b'{"id": "b", "text": ""}',
    b'{"id": "\xff", "text": "x"}',
    b'{"id": "c", "text": "\\ud800"}',
    b'{"id": "d", "title": "' + b"x" * 5_000 + b'"}',
    b'{"id": "e", "text": "Honey"}',
]


class TestValidate:
    @pytest.mark.parametrize(
        ("name", "word"), [("content", "content"), ("tags", "tags"), ("exemplars", "exemplars"), ("new_tag", "tags")]
    )
    def test_the_examples_are_right(self, tagbus: Cli, name: str, word: str) -> None:
        file = next(path for path in example(".").glob(f"{name}.json*"))
        answer = tagbus("validate", file, "--as", word)
        assert answer.code == 0
        assert answer.out == ""
        assert answer.err.endswith(" right, 0 wrong\n")

    def test_segments_of_knowledge(self, tagbus: Cli) -> None:
        lines = b'{"id": "a", "kind": "rule", "text": "x"}\n{"id": "b", "kind": "rule"}'
        answer = tagbus("validate", "-", "--as", "knowledge", stdin=lines)
        assert answer.code == 3
        assert answer.lines == ["-:2: text: (missing) is wrong, expected a string of 1 to 500000 characters"]

    def test_a_segment_that_has_expired_is_right_and_used_no_more(self, tagbus: Cli) -> None:
        line = b'{"id": "a", "kind": "news", "text": "x", "valid_until": "2020-01-01T00:00:00Z"}'
        answer = tagbus("validate", "-", "--as", "knowledge", stdin=line)
        assert answer.code == 0
        assert answer.err.splitlines() == [
            "warning: -:1: is no longer used: `valid_until` has passed",
            "1 right, 0 wrong",
        ]

    def test_line_and_field_of_every_error(self, tagbus: Cli, tmp_path: Path) -> None:
        file = tmp_path / "contents.jsonl"
        file.write_bytes(b"\n".join(HOSTILE))
        answer = tagbus("validate", file)
        assert answer.code == 3
        places = [line.split(": ")[:2] for line in answer.lines]
        assert places == [
            [f"{file}:2", "value"],
            [f"{file}:4", "id"],
            [f"{file}:4", "text"],
            [f"{file}:5", "text"],
            [f"{file}:6", "value"],
            [f"{file}:7", "value"],
            [f"{file}:8", "title"],
        ]
        assert all(" is wrong, expected " in line for line in answer.lines)
        assert answer.err.splitlines() == ["2 right, 6 wrong", "tagbus: 6 lines are wrong"]

    def test_standard_input(self, tagbus: Cli) -> None:
        answer = tagbus("validate", "-", stdin=b'{"id": "a", "text": "x"}\n{"id": "b"}')
        assert answer.code == 3
        assert answer.lines == ["-:2: text: '' is wrong, expected a title or a text that is not empty"]

    @pytest.mark.parametrize(
        ("word", "lines", "said"),
        [
            ("tags", b"", ["-: holds no tags: no content gets a tag"]),
            ("content", b"\n", ["-: holds no content"]),
            (
                "tags",
                b'{"id": "a", "name": "bees"}\n{"id": "a", "name": "wasps"}\n{"id": "a", "name": "ants"}',
                ["-:2: 'a' is already on -:1; the last one counts (2 lines)"],
            ),
            (
                "content",
                b'{"id": "a", "title": "Bees", "version": 1}\n{"id": "a", "title": "Bees", "version": 2}',
                ["-:2: 'a' is already on -:1; the newest version counts"],
            ),
            (
                "exemplars",
                b'{"id": "a", "title": "bees in the city", "tags": ["a"]}',
                [
                    "-:1: 'tags' is not a field of exemplars and is ignored; "
                    "fields are id, source, title, text, accepted, rejected, time, scopes",
                    "-:1: has no effect: neither `accepted` nor `rejected` names a tag",
                ],
            ),
            (
                "exemplars",
                b'{"id": "a", "source": "machine", "text": "x", "accepted": ["t"]}\n'
                b'{"id": "a", "rejected": ["t"]}\n{"id": "b", "text": "x", "accepted": ["t"]}',
                ["-:2: has neither title nor text: after publishing it waits for a decision with the content's text"],
            ),
            (
                "tags",
                b'{"id": "a", "name": "a", "parents": ["b"]}\n{"id": "b", "name": "b", "parents": ["a", "c"]}\n'
                b'{"id": "c", "name": "c", "parents": ["c"]}\n{"id": "d", "name": "d", "replaced_by": ["e"]}\n'
                b'{"id": "e", "name": "e", "replaced_by": ["d"]}',
                [
                    "-:1: `parents` form a cycle, which is not followed: 'a' -> 'b' -> 'a' (2 lines)",
                    "-:4: `replaced_by` form a cycle, which is not followed: 'd' -> 'e' -> 'd'",
                ],
            ),
        ],
        ids=["no taxonomy", "nothing", "a tag twice", "a content twice", "another field", "no text", "circles"],
    )
    def test_a_word_about_what_is_right_and_has_no_effect(
        self, tagbus: Cli, word: str, lines: bytes, said: list[str]
    ) -> None:
        answer = tagbus("validate", "-", "--as", word, stdin=lines)
        assert (answer.code, answer.out) == (0, "")
        assert answer.err.splitlines()[:-1] == [f"warning: {line}" for line in said]

    def test_contents_given_as_exemplars(self, tagbus: Cli) -> None:
        answer = tagbus("validate", example("content.jsonl"), "--as", "exemplars")
        assert answer.code == 0
        assert "'language' is not a field of exemplars and is ignored; fields are id, source, " in answer.err
        assert "has no effect: neither `accepted` nor `rejected` names a tag (" in answer.err

    def test_what_publish_refuses_of_people_s_exemplars_is_wrong(self, tagbus: Cli) -> None:
        lines = [
            {"id": "a", "title": "x", "accepted": ["t"], "rejected": ["t"], "source": source}
            for source in ("people", "machine")
        ]
        answer = tagbus("validate", "-", "--as", "exemplars", stdin="\n".join(map(json.dumps, lines)).encode())
        assert (answer.code, answer.lines) == (3, ["-:1: rejected: 't' is wrong, expected no tag that is accepted too"])

    def test_content_cannot_write_to_the_terminal(self, tagbus: Cli) -> None:
        line = json.dumps({"id": "\x1b[31m", "name": "x", "\x1b[32m": 1}).encode()
        answer = tagbus("validate", "-", "--as", "tags", stdin=line + b"\n" + line)
        assert len(answer.err.splitlines()) == 3
        assert "\x1b" not in answer.err

    def test_what_is_kept_of_a_file_is_bounded(self, tagbus: Cli) -> None:
        line = json.dumps({"id": "a", "name": "x"} | {f"field {number}": 1 for number in range(5_000)}).encode()
        answer = tagbus("validate", "-", "--as", "tags", stdin=line)
        assert answer.err.splitlines()[-2] == "warning: -: and more of other kinds"
        assert len(answer.err.splitlines()) == 22

    def test_a_line_larger_than_any_event_is_refused_and_not_kept(self, tagbus: Cli) -> None:
        answer = tagbus("validate", "-", stdin=b"x" * 9_000_000 + b'\n{"id": "a", "text": "x"}\n')
        assert answer.err.splitlines() == ["1 right, 1 wrong", "tagbus: 1 line is wrong"]
        assert answer.lines == ["-:1: value: a value of 4000001 bytes is wrong, expected at most 4000000 bytes"]

    def test_a_pipe(self, tagbus: Cli, tmp_path: Path) -> None:
        with fifo(tmp_path / "pipe", b'{"id": "a", "text": "x"}\n{"id": "b"}') as path:
            answer = tagbus("validate", path)
        assert answer.code == 3
        assert answer.lines == [f"{path}:2: text: '' is wrong, expected a title or a text that is not empty"]

    def test_a_record_that_no_topic_takes_unless_it_is_set_to(self, tagbus: Cli, tmp_path: Path) -> None:
        path = large(tmp_path / "three.jsonl")
        answer = tagbus("validate", path)
        assert answer.code == 3
        (wrong,) = answer.lines
        assert wrong.startswith(f"{path}:2: value: a record of 15")
        assert wrong.endswith(" bytes is wrong, expected at most 1048588 bytes, Kafka's default of max.message.bytes")
        assert tagbus("validate", path, BATCH__RECORD_BYTES="2000000").err == "3 right, 0 wrong\n"


class TestDocuments:
    def test_asyncapi_names_the_topics_of_the_settings(self, tagbus: Cli) -> None:
        document = json.loads(tagbus("asyncapi", TOPICS__CONTENT="news").out)
        assert document["asyncapi"] == "3.0.0"
        assert {channel["address"] for channel in document["channels"].values()} >= {"news", "tags", "tagged"}

    @pytest.mark.parametrize(
        "topic", ["content", "tags", "exemplars", "knowledge", "tagged", "feedback", "content.dlq"]
    )
    def test_a_schema_is_one(self, tagbus: Cli, topic: str) -> None:
        jsonschema.Draft202012Validator.check_schema(json.loads(tagbus("schema", topic).out))

    def test_the_examples_satisfy_their_schema(self, tagbus: Cli) -> None:
        validator = jsonschema.Draft202012Validator(json.loads(tagbus("schema", "content").out))
        for line in example("content.jsonl").read_text().splitlines():
            validator.validate(json.loads(line))


class TestConfig:
    def test_the_effective_settings(self, tagbus: Cli) -> None:
        settings = json.loads(tagbus("config", KAFKA__BROKERS="a:1,b:2", RECALL__LAMBDA="0.25").out)
        assert settings["kafka"]["brokers"] == "a:1,b:2"
        assert settings["recall"]["lambda"] == 0.25
        assert settings["topics"]["dead_letters"] == "content.dlq"

    def test_secrets_are_masked(self, tagbus: Cli) -> None:
        answer = tagbus("config", KAFKA__SECRETS='{"sasl.password": "hunter2"}', MEMORY__API_KEY="hunter3")
        assert answer.code == 0
        assert "sasl.password" in answer.out
        assert "hunter" not in answer.out

    def test_a_secret_that_is_wrong_is_not_shown_either(self, tagbus: Cli) -> None:
        answer = tagbus("config", KAFKA__SECRETS='{"sasl.password": ["hunter2"]}')
        assert answer.code == 2
        assert "hunter" not in answer.one_line()
