"""Confluent's wire format, and a real registry that gives the ids: Apicurio Registry, which speaks Confluent's API."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from tagbus.stream.config import RegistrySettings, TopicSettings, load
from tagbus.stream.contract.codec import Record, decode_content, decode_tagged, encode, event_key, unframed
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.contract.registry import Schemas, schema_of
from tagbus.stream.contract.schema import EXAMPLES
from tagbus.stream.errors import DependencyDown, Undecodable, UserError
from tests.contract.apicurio import apicurio, missing
from tests.contract.strategies import CONTENTS, EXEMPLARS, TAGGED
from tests.support import unique

RESULT = EXAMPLES["tagged"]
EXEMPLAR = EXAMPLES["exemplars"]


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """The address of a registry."""
    reason = missing()
    if reason and os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
    with apicurio() as url:
        yield url


def topics() -> TopicSettings:
    """Topics that no other test has registered."""
    return TopicSettings(tagged=unique("tagged"), exemplars=unique("exemplars"))


# The wire format


@given(CONTENTS, st.integers(0, 2**31 - 1))
def test_a_value_with_a_schemas_id_is_the_same_event(content: Content, schema: int) -> None:
    value = encode(content, schema)

    assert value[0] == 0
    assert int.from_bytes(value[1:5]) == schema
    assert value[5:] == encode(content)
    assert decode_content(Record(None, value)) == content


@given(TAGGED)
def test_without_an_id_the_value_is_plain_json(event: TaggedContent) -> None:
    assert unframed(encode(event)) == encode(event)


def test_a_cloudevent_may_stand_behind_an_id() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"id": "a", "title": "Bees"}}
    value = b"\0\0\0\0\x07" + json.dumps(event).encode()

    headers = (("content-type", b"application/cloudevents+json"),)
    assert decode_content(Record(None, value, headers)) == Content(id="a", title="Bees")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\0", "value: b'\\x00' is wrong, expected a byte 0, four bytes of a schema's id, then JSON"),
        (
            b"\0\0\0\0\1",
            "value: b'\\x00\\x00\\x00\\x00\\x01' is wrong, expected a byte 0, four bytes of a schema's id,",
        ),
        (b"\0\0\0\0\1\2\6avro", "value: b'\\x02\\x06avro' is wrong, expected JSON in UTF-8"),
    ],
)
def test_what_is_no_json_behind_an_id_is_refused(value: bytes, message: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode_content(Record(None, value))

    assert message in str(caught.value)


# Without a registry


def test_without_a_registry_nobody_is_asked_and_values_are_plain() -> None:
    schemas = Schemas(RegistrySettings(), TopicSettings())
    schemas.register()

    assert schemas.encode("tagged", RESULT) == encode(RESULT)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)

    with pytest.raises(UserError, match=r"is missing: pip install 'tagbus\[registry\]'"):
        Schemas(RegistrySettings(url="http://127.0.0.1:1"), TopicSettings()).register()


def test_the_client_of_the_registry_is_not_loaded_without_one() -> None:
    script = "import sys, tagbus.stream.cli; print('confluent_kafka.schema_registry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_a_registry_that_does_not_answer_is_a_dependency_that_is_down() -> None:
    with pytest.raises(DependencyDown, match=r"the schema registry at http://127.0.0.1:1 does not answer"):
        Schemas(RegistrySettings(url="http://127.0.0.1:1"), TopicSettings()).register()


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, UserError, "refuses tagged-value; see registry.user and registry.password"),
        (403, UserError, "refuses tagged-value; see registry.user and registry.password"),
        (404, UserError, "rejects tagged-value; check registry.url"),
        (500, DependencyDown, "cannot register tagged-value now"),
    ],
)
def test_a_registry_that_says_no_is_told_without_the_password(
    status: int, error: type[Exception], message: str
) -> None:
    asked: list[str | None] = []

    class No(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["Authorization"])
            body = json.dumps({"error_code": status, "message": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Not onto the terminal."""

    with HTTPServer(("127.0.0.1", 0), No) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        given_settings = RegistrySettings.model_validate({"url": url, "user": "tagbus", "password": "hush"})
        with pytest.raises(error, match=message) as caught:
            Schemas(given_settings, TopicSettings()).register()
        server.shutdown()

    assert asked[0] == "Basic dGFnYnVzOmh1c2g="
    assert "hush" not in str(caught.value) + repr(given_settings)


# With a registry


def test_results_carry_the_id_of_their_schema_and_confluents_own_client_reads_them(registry: str) -> None:
    names = topics()
    schemas = Schemas(RegistrySettings(url=registry), names)
    schemas.register()

    with SchemaRegistryClient({"url": registry}) as client:
        for topic, word, event in ((names.tagged, "tagged", RESULT), (names.exemplars, "exemplars", EXEMPLAR)):
            value = schemas.encode(topic, event)
            found = client.get_latest_version(f"{topic}-value")
            assert found.schema is not None
            assert int.from_bytes(value[1:5]) == found.schema_id
            assert json.loads(found.schema.schema_str or "") == schema_of(word)
            read = JSONDeserializer(None, schema_registry_client=client)
            context = SerializationContext(topic, MessageField.VALUE)
            assert read(value, context) == json.loads(encode(event))
    assert decode_tagged(Record(event_key(RESULT).encode(), schemas.encode(names.tagged, RESULT))) == RESULT  # type: ignore[arg-type]


def test_a_topic_that_is_not_registered_stays_plain(registry: str) -> None:
    schemas = Schemas(RegistrySettings(url=registry), topics())
    schemas.register()

    assert schemas.encode("another", RESULT) == encode(RESULT)


@pytest.mark.parametrize("word", ["tagged", "exemplars"])
@given(data=st.data())
def test_the_registered_schema_says_the_same_in_its_own_dialect(word: str, data: st.DataObject) -> None:
    schema = schema_of(word)
    Draft7Validator.check_schema(schema)
    event = data.draw(TAGGED if word == "tagged" else EXEMPLARS)
    value = json.loads(encode(event))

    assert Draft7Validator(schema).is_valid(value)
    assert not Draft7Validator(schema).is_valid(value | {"id": 5})


def test_every_process_gets_the_same_id(registry: str) -> None:
    names = topics()
    pair = [Schemas(RegistrySettings(url=registry), names) for _ in range(2)]
    for one in pair:
        one.register()

    assert pair[0].encode(names.tagged, RESULT) == pair[1].encode(names.tagged, RESULT)


def test_a_schema_that_the_registry_finds_incompatible_is_told(registry: str) -> None:
    names = topics()
    subject = f"{names.tagged}-value"
    with SchemaRegistryClient({"url": registry}) as client:
        client.register_schema(subject, Schema('{"type": "object", "properties": {"id": {"type": "integer"}}}', "JSON"))
        client.set_compatibility(subject, "BACKWARD")

    with pytest.raises(UserError) as caught:
        Schemas(RegistrySettings(url=registry), names).register()

    assert f"the schema registry finds the schema of {subject} incompatible with its current one" in str(caught.value)
    assert "compatibility to FORWARD or NONE" in str(caught.value)


def test_a_password_in_the_address_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_REGISTRY__URL", "http://tagbus:hush@registry:8081")

    with pytest.raises(UserError) as caught:
        load()

    assert str(caught.value) == (
        "TAGBUS_REGISTRY__URL=********: expected an address alone: user, password and key have settings of their own"
    )


def test_the_fixture_of_the_registry_is_the_real_one(registry: str, tmp_path: Path) -> None:
    """Not a stub: it refuses what is no JSON Schema."""
    with SchemaRegistryClient({"url": registry}) as client, pytest.raises(Exception, match=r"422|400"):
        client.register_schema(unique("x"), Schema('{"type": 5', "JSON"))
