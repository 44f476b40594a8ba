"""Settings: one tree, from the environment, clear about what is wrong."""

import os
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from tagbus.stream.app.components import Components
from tagbus.stream.config import Settings, load
from tagbus.stream.errors import UserError


def leaves(tree: BaseModel, above: str = "") -> Iterator[tuple[str, object]]:
    """Each field of the tree with its path, as variables name it."""
    for name, field in type(tree).model_fields.items():
        path, value = f"{above}{field.alias or name}", getattr(tree, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TAGBUS_"):
            monkeypatch.delenv(name)


def test_a_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__BROKERS", "k1:9092,k2:9092")
    monkeypatch.setenv("TAGBUS_RECALL__LAMBDA", "0.4")
    monkeypatch.setenv("TAGBUS_BATCH__CONTENTS", "17")

    settings = load()

    assert settings.kafka.brokers == "k1:9092,k2:9092"
    assert settings.recall.lambda_ == 0.4
    assert settings.batch.contents == 17


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("TAGBUS_BATCH__CONTENTS", "many", ["TAGBUS_BATCH__CONTENTS", "'many'", "integer"]),
        ("TAGBUS_BATCH__CONTENTS", "0", ["TAGBUS_BATCH__CONTENTS", "'0'", "greater than or equal to 1"]),
        ("TAGBUS_KAFKA__DELIVERY", "maybe", ["TAGBUS_KAFKA__DELIVERY", "'maybe'", "exactly_once"]),
        ("TAGBUS_KAFKA__BROKER", "x:1", ["TAGBUS_KAFKA__BROKER is no setting"]),
        ("TAGBUS_KAFAK__BROKERS", "x:1", ["TAGBUS_KAFAK__BROKERS", "no setting"]),
        ("TAGBUS_KAFAK__BROKERS", "", ["TAGBUS_KAFAK__BROKERS is no setting"]),
        ("TAGBUS_KAFKA__BROKER", "", ["TAGBUS_KAFKA__BROKER is no setting"]),
        ("TAGBUS_RECALL__LAMBDA_", "0.4", ["TAGBUS_RECALL__LAMBDA_ is no setting"]),
        ("TAGBUS_KAFKA__OPTIONS", "not json", ["TAGBUS_KAFKA__OPTIONS", "JSON object"]),
        ("TAGBUS_KAFKA", "k1:9092", ["TAGBUS_KAFKA: expected a JSON object", "TAGBUS_KAFKA__BROKERS"]),
        ("TAGBUS_KAFKA", "tcp://kafka:9092", ["TAGBUS_KAFKA: expected a JSON object", "TAGBUS_KAFKA__BROKERS"]),
        ("TAGBUS_COMPONENTS", "heads", ["TAGBUS_COMPONENTS: expected a JSON object"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(UserError) as caught:
        load()

    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "name", "named", "other"),
    [
        ("DEAD_LETTERS", "content", "DEAD_LETTERS", "CONTENT"),
        ("TAGGED", "content", "TAGGED", "CONTENT"),
        ("EXEMPLARS", "tags", "EXEMPLARS", "TAGS"),
        # The other one may be a default.
        ("CONTENT", "content.dlq", "DEAD_LETTERS", "CONTENT"),
        ("TAGS", "releases", "RELEASES", "TAGS"),
    ],
)
def test_two_settings_that_name_one_topic_are_refused(
    monkeypatch: pytest.MonkeyPatch, field: str, name: str, named: str, other: str
) -> None:
    monkeypatch.setenv(f"TAGBUS_TOPICS__{field}", name)

    with pytest.raises(UserError) as caught:
        load()

    words = f"TAGBUS_TOPICS__{named}={name!r}: TAGBUS_TOPICS__{other} names the same topic, expected another"
    assert str(caught.value) == words


def test_a_secret_shows_neither_in_the_tree_nor_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__SECRETS", '{"sasl.password": "hunter2"}')

    settings = load()

    assert "hunter2" not in settings.model_dump_json()
    assert "hunter2" not in repr(settings)
    assert settings.kafka.client()["sasl.password"] == "hunter2"

    monkeypatch.setenv("TAGBUS_KAFKA__SECRETS", '{"sasl.password": ["hunter2"]}')
    with pytest.raises(UserError) as caught:
        load()
    assert "hunter2" not in str(caught.value)

    monkeypatch.delenv("TAGBUS_KAFKA__SECRETS")
    for value in ('["hunter2"]', '{"secrets": {"sasl.password": "hunter2"}'):
        monkeypatch.setenv("TAGBUS_KAFKA", value)
        with pytest.raises(UserError) as caught:
            load()
        assert "TAGBUS_KAFKA" in str(caught.value)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("path", [path for path, _ in leaves(Settings())])
def test_an_empty_value_is_as_none(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A compose file sets a variable that nobody gave to nothing: `TAGBUS_KAFKA__GROUP: ${GROUP}`."""
    expected = Settings()
    monkeypatch.setenv("TAGBUS_" + path.upper().replace(".", "__"), "")

    assert load() == expected


@pytest.mark.parametrize("variable", ["TAGBUS_KAFKA", "TAGBUS_COMPONENTS", "TAGBUS_COMPONENTS__HEADS__FOLDER"])
def test_so_is_that_of_a_section_and_of_a_component(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")

    assert load() == Settings.model_construct()
    assert not Components.of(load()).on


def test_every_setting_has_a_default() -> None:
    assert Settings().kafka.delivery == "exactly_once"
