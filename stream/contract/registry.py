"""Confluent's schema registry: the schema ids of what tagbus writes.

Optional. A process queries it once at startup, so a result costs five bytes and no lookup. Reading never uses it: the
models validate every field that is used, and a registry outage stops nothing.
"""

from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic_core import to_json

from tagbus.stream.config import RegistrySettings, TopicSettings
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.fields import Event
from tagbus.stream.contract.schema import Json, json_schema
from tagbus.stream.errors import DependencyDown, TagbusError, UserError, shorten

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

# Registries that check compatibility know this draft; for 2020-12 one of them (Apicurio 2.6) returns HTTP 500 "could
# not determine version". Our schemas mean the same in both.
DIALECT = "http://json-schema.org/draft-07/schema#"
SECONDS = 5.0
RETRIES = 2
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_MESSAGE_CHARS = 400


class Schemas:
    """Encodes events for the topics that tagbus writes; with a registry, in its wire format."""

    def __init__(self, registry: RegistrySettings, topics: TopicSettings) -> None:
        self._registry = registry
        self._words = {topics.tagged: "tagged", topics.exemplars: "exemplars"}
        self._ids: dict[str, int] = {}

    def register(self) -> None:
        """Register the schema of each topic under TOPIC-value and keep its id; does nothing without registry.url.

        Takes seconds if the registry is slow. Raises UserError if it rejects a schema, DependencyDown if it does not
        answer.
        """
        if self._registry.url is None:
            return
        with _client(self._registry) as client:
            self._ids = {topic: self._register(client, topic, word) for topic, word in self._words.items()}

    def encode(self, topic: str, event: Event) -> bytes:
        """The value of an event's record on this topic."""
        return encode(event, self._ids.get(topic))

    def _register(self, client: "SchemaRegistryClient", topic: str, word: str) -> int:
        from confluent_kafka.schema_registry import Schema, SchemaRegistryError
        from httpx2 import HTTPError, InvalidURL

        subject = f"{topic}-value"
        try:
            return client.register_schema(subject, Schema(to_json(schema_of(word)).decode(), "JSON"))
        except SchemaRegistryError as error:
            raise _refusal(error.http_status_code, error.error_message, subject) from None
        except (HTTPError, InvalidURL) as error:
            raise DependencyDown(f"the schema registry at {self._registry.url} does not answer: {error}") from None


def schema_of(word: str) -> Json:
    """The JSON Schema of a topic's value in the form that registries accept."""
    return {**json_schema(word), "$schema": DIALECT}


def _client(registry: RegistrySettings) -> "SchemaRegistryClient":
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
    except ImportError as error:
        raise UserError(f"registry.url is set, but {error.name} is missing: pip install 'tagbus[registry]'") from None
    properties: dict[str, str | int | float] = {
        "url": registry.url or "",
        "timeout": SECONDS,
        "max.retries": RETRIES,
        "retries.wait.ms": 200,
    }
    if registry.user is not None and registry.password is not None:
        properties["basic.auth.user.info"] = f"{registry.user}:{registry.password.get_secret_value()}"
    return SchemaRegistryClient(properties)


def _refusal(status: int, message: str, subject: str) -> TagbusError:
    """Map the registry's HTTP error to an error of the tagbus tree."""
    answer = f"HTTP {status}: {shorten(message, _MESSAGE_CHARS)}"
    if status in _REFUSED:
        return UserError(f"the schema registry refuses {subject}; see registry.user and registry.password ({answer})")
    if status == HTTPStatus.CONFLICT:
        return UserError(
            f"the schema registry finds the schema of {subject} incompatible with its current one; "
            f"set the subject's compatibility to FORWARD or NONE ({answer})"
        )
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
        return UserError(f"the schema registry rejects {subject}; check registry.url ({answer})")
    return DependencyDown(f"the schema registry cannot register {subject} now ({answer})")
