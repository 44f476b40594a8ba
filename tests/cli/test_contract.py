"""`tagbus validate`, `asyncapi`, `schema` and `config`."""

import json
from pathlib import Path

import jsonschema
import pytest

from tagbus.stream.app.examples import example
from tests.cli.harness import Cli

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

    def test_a_line_larger_than_any_event_is_refused_and_not_kept(self, tagbus: Cli) -> None:
        answer = tagbus("validate", "-", stdin=b"x" * 9_000_000 + b'\n{"id": "a", "text": "x"}\n')
        assert answer.err.splitlines()[0] == "1 right, 1 wrong"
        assert answer.lines == ["-:1: value: a value of 4000001 bytes is wrong, expected at most 4000000 bytes"]


class TestDocuments:
    def test_asyncapi_names_the_topics_of_the_settings(self, tagbus: Cli) -> None:
        document = json.loads(tagbus("asyncapi", TOPICS__CONTENT="news").out)
        assert document["asyncapi"] == "3.0.0"
        assert {channel["address"] for channel in document["channels"].values()} >= {"news", "tags", "tagged"}

    @pytest.mark.parametrize("topic", ["content", "tags", "exemplars", "knowledge", "tagged", "content.dlq"])
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
