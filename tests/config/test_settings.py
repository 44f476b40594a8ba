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
        ("TAGBUS_KAFKA__BROKER", "x:1", ["TAGBUS_KAFKA__BROKER is not a setting"]),
        ("TAGBUS_MEMORY__WRITE_CONSISTENCY", "2", ["TAGBUS_MEMORY__WRITE_CONSISTENCY", "at most memory.replicas=1"]),
        ("TAGBUS_MEMORY__QUANTIZATION", "binary", ["TAGBUS_MEMORY__QUANTIZATION", "'none' or 'int8'"]),
        ("TAGBUS_KAFAK__BROKERS", "x:1", ["TAGBUS_KAFAK__BROKERS", "not a setting"]),
        ("TAGBUS_KAFAK__BROKERS", "", ["TAGBUS_KAFAK__BROKERS is not a setting"]),
        ("TAGBUS_KAFKA__BROKER", "", ["TAGBUS_KAFKA__BROKER is not a setting"]),
        ("TAGBUS_RECALL__LAMBDA_", "0.4", ["TAGBUS_RECALL__LAMBDA_ is not a setting"]),
        ("TAGBUS_KAFKA__OPTIONS", "not json", ["TAGBUS_KAFKA__OPTIONS", "JSON object"]),
        ("TAGBUS_KAFKA", "k1:9092", ["TAGBUS_KAFKA: expected a JSON object", "TAGBUS_KAFKA__BROKERS"]),
        ("TAGBUS_KAFKA", "tcp://kafka:9092", ["TAGBUS_KAFKA: expected a JSON object", "TAGBUS_KAFKA__BROKERS"]),
        ("TAGBUS_COMPONENTS", "heads", ["TAGBUS_COMPONENTS: expected a JSON object"]),
        ("TAGBUS_KAFKA__GROUP", "taggers ü", ["TAGBUS_KAFKA__GROUP", "visible ASCII"]),
        ("TAGBUS_KAFKA__INSTANCE", "worker 1", ["TAGBUS_KAFKA__INSTANCE='worker 1'", "no spaces"]),
        ("TAGBUS_TOPICS__CONTENT", "my topic", ["TAGBUS_TOPICS__CONTENT='my topic'", "letters, digits, dots"]),
        ("TAGBUS_TOPICS__TAGGED", "..", ["TAGBUS_TOPICS__TAGGED='..'", "letters, digits, dots"]),
        ("TAGBUS_TOPICS__TAGS", "t" * 250, ["TAGBUS_TOPICS__TAGS", "1 to 249"]),
        ("TAGBUS_HEALTH__PORT", '"8780"', ["TAGBUS_HEALTH__PORT='\"8780\"'", "docker --env-file", "none around it"]),
        ("TAGBUS_TOPICS__CONTENT", "'content'", ["TAGBUS_TOPICS__CONTENT", "docker --env-file"]),
        ("TAGBUS_KAFKA__OPTIONS", '{"debug": "cgrp", "debug": "all"}', ["TAGBUS_KAFKA__OPTIONS: 'debug' occurs twice"]),
        ("TAGBUS_KAFKA__SECRETS", '{"a": "hush", "a": "hush"}', ["TAGBUS_KAFKA__SECRETS: 'a' occurs twice"]),
        ("TAGBUS_KAFKA__OPTIONS", '{"debug": ["cgrp"]}', ["TAGBUS_KAFKA__OPTIONS: debug=", "valid string"]),
        ("TAGBUS_KAFKA__SECRETS", '{"sasl.password": 12}', ["TAGBUS_KAFKA__SECRETS: sasl.password=****", "string"]),
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
    ("given", "expected"),
    [
        ("k1:9092, k2:9092 ,", "k1:9092,k2:9092"),
        ("broker-1.kafka_svc", "broker-1.kafka_svc"),
        ("[::1]:9092,[fe80::1%eth0]", "[::1]:9092,[fe80::1%eth0]"),
        ("SASL_SSL://k1:9093,plaintext://10.0.0.1:9092", "SASL_SSL://k1:9093,plaintext://10.0.0.1:9092"),
    ],
)
def test_brokers_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch, given: str, expected: str) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__BROKERS", given)
    assert load().kafka.brokers == expected


@pytest.mark.parametrize(
    "given",
    [
        ",",
        "kafka://k1:9092",
        "http://k1:9092/",
        "k1:port",
        "k1:0",
        "k1:65536",
        "::1",
        "[::1",
        "k1:9092;k2:9092",
        "k1 k2",
    ],
)
def test_brokers_that_no_client_finds_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """librdkafka takes them, and waits for ever."""
    monkeypatch.setenv("TAGBUS_KAFKA__BROKERS", given)
    with pytest.raises(UserError) as caught:
        load()
    words = f"TAGBUS_KAFKA__BROKERS={given!r}: expected host:port, several with commas, IPv6 as [::1]:9092"
    assert str(caught.value) == words


@pytest.mark.parametrize("around", ["{}\n", "{}\r", " {} ", "{}\r\n"])
def test_white_space_around_a_value_is_none_of_it(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    """`echo` ends a secret with a line feed, an editor on Windows each line of a file with a carriage return."""
    for name, value in {"TOPICS__CONTENT": "news", "MEMORY__API_KEY": "key", "REGISTRY__URL": "http://r:8081"}.items():
        monkeypatch.setenv(f"TAGBUS_{name}", around.format(value))
    settings = load()
    assert settings.topics.content == "news"
    assert settings.registry.url == "http://r:8081"
    assert settings.memory.api_key is not None
    assert settings.memory.api_key.get_secret_value() == "key"


def test_a_secret_may_have_quotes_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_REGISTRY__PASSWORD", '"quoted"')
    monkeypatch.setenv("TAGBUS_KAFKA__SECRETS", r"""{"sasl.password": "a$b\"c\\d'é "}""")
    settings = load()
    assert settings.registry.password is not None
    assert settings.registry.password.get_secret_value() == '"quoted"'
    assert settings.kafka.client()["sasl.password"] == "a$b\"c\\d'é "


def test_properties_of_librdkafka_may_be_numbers_and_truth_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__OPTIONS", '{"socket.timeout.ms": 5000, "socket.keepalive.enable": true}')
    assert load().kafka.options == {"socket.timeout.ms": "5000", "socket.keepalive.enable": "true"}


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


@pytest.mark.parametrize(
    ("workers", "views"),
    [
        (None, "tagbus-views"),
        ("prod.tagbus", "prod.tagbus-views"),
        # No topic may be called that, and one that loses it must not meet another.
        ("prod/tagbus", "prod-tagbus-47d4010b-views"),
        ("prod:tagbus", "prod-tagbus-f8c3931f-views"),
        ("g" * 300, "g" * 200 + "-1512a6f6-views"),
    ],
)
def test_installations_with_groups_of_their_own_have_views_of_their_own(
    monkeypatch: pytest.MonkeyPatch, workers: str | None, views: str
) -> None:
    if workers is not None:
        monkeypatch.setenv("TAGBUS_KAFKA__GROUP", workers)
    # Whether or not another setting of the views is given.
    for _ in range(2):
        own = load().views
        assert own.group == views
        assert own.changes == f"{views}-changes"
        assert len(own.content_changelog) <= 249
        monkeypatch.setenv("TAGBUS_VIEWS__PORT", "8791")
    monkeypatch.setenv("TAGBUS_VIEWS__GROUP", "ours")
    assert load().views.group == "ours"


@pytest.mark.parametrize("group", ["workers", "workers-feedback"])
def test_the_views_may_not_join_the_group_of_a_worker(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    """They would wait for ever: members of a group must share a way of assigning partitions."""
    monkeypatch.setenv("TAGBUS_KAFKA__GROUP", "workers")
    monkeypatch.setenv("TAGBUS_VIEWS__GROUP", group)
    with pytest.raises(UserError) as caught:
        load()
    words = "the group of `tagbus run` or `tagbus feedback` (kafka.group=workers), expected another"
    assert str(caught.value) == f"TAGBUS_VIEWS__GROUP={group!r}: {words}"


def test_a_group_that_is_wrong_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__GROUP", "two words")
    with pytest.raises(UserError) as caught:
        load()
    assert str(caught.value).count("TAGBUS_") == 1


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
    """A compose file sets a variable without a value to nothing: `TAGBUS_KAFKA__GROUP: ${GROUP}`."""
    expected = Settings()
    monkeypatch.setenv("TAGBUS_" + path.upper().replace(".", "__"), "")

    assert load() == expected


@pytest.mark.parametrize("given", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("path", [path for path, value in leaves(Settings()) if isinstance(value, float)])
def test_nan_and_infinity_are_refused(monkeypatch: pytest.MonkeyPatch, path: str, given: str) -> None:
    variable = "TAGBUS_" + path.upper().replace(".", "__")
    monkeypatch.setenv(variable, given)

    with pytest.raises(UserError, match=variable):
        load()


@pytest.mark.parametrize("variable", ["TAGBUS_KAFKA", "TAGBUS_COMPONENTS", "TAGBUS_COMPONENTS__HEADS__FOLDER"])
def test_so_is_that_of_a_section_and_of_a_component(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")

    assert load() == Settings.model_construct()
    assert not Components.of(load()).on


def test_every_setting_has_a_default() -> None:
    assert Settings().kafka.delivery == "exactly_once"
