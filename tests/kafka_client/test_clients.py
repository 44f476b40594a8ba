"""The clients' properties: what passes through, what may not be changed, and what is never shown."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError

from tagbus.stream.config import CONFIDENTIAL, KafkaSettings, Settings, load
from tagbus.stream.errors import UserError
from tagbus.stream.kafka import clients

ROOT = Path(__file__).parents[2]


def given(**kafka: object) -> Settings:
    return Settings.model_validate({"kafka": {"brokers": "127.0.0.1:1", "options": {"log_level": "0"}, **kafka}})


def nothing(error: KafkaError) -> None:
    """An error callback."""


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("enable.auto.commit", "tagbus commits each batch itself"),
        ("group.id", r"kafka\.group"),
        ("group.protocol", r"kafka\.group_protocol"),
        ("group.instance.id", r"kafka\.membership"),
        ("auto.offset.reset", r"kafka\.start and kafka\.out_of_range"),
        ("transactional.id", r"kafka\.transactional_id and kafka\.instance"),
        ("partitioner", "where Java clients put them"),
        ("allow.auto.create.topics", "`tagbus topics create` alone creates topics"),
    ],
)
def test_what_the_guarantee_rests_on_may_not_be_set(name: str, right: str) -> None:
    with pytest.raises(UserError, match=f"{name} may not be set there, set .*{right}"):
        clients.group_member(given(options={name: "x"}), nothing)


@pytest.mark.parametrize("name", sorted(CONFIDENTIAL))
def test_a_secret_is_refused_among_the_options(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__OPTIONS", json.dumps({"ssl.ca.location": "/ca.pem", name: "hunter2"}))
    with pytest.raises(UserError, match=f"{name} is a secret, set it in kafka.secrets") as raised:
        load()
    assert "hunter2" not in str(raised.value)


def test_a_misspelt_property_is_named() -> None:
    with pytest.raises(UserError, match=r"securty\.protocol"):
        clients.group_member(given(options={"securty.protocol": "ssl"}), nothing)


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(UserError) as raised:
        clients.result_producer(
            given(secrets={"sasl.mechanism": "hunter2"}, options={"security.protocol": "hunter2"}), nothing
        )
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("membership", ["dynamic", "static"])
def test_both_group_protocols_and_memberships_are_taken(protocol: str, membership: str) -> None:
    # KIP-848: librdkafka refuses settings of session, heartbeat and strategy.
    clients.group_member(given(group_protocol=protocol, membership=membership, session_seconds=30), nothing).close()


def test_what_the_new_group_protocol_does_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"partition\.assignment\.strategy"):
        clients.group_member(
            given(group_protocol="consumer", options={"partition.assignment.strategy": "range"}), nothing
        )


def test_long_transactions_and_large_records_are_taken() -> None:
    clients.result_producer(given(transaction_seconds=600), nothing)
    clients.result_producer(given(delivery="at_least_once"), nothing)
    clients.admin(given().kafka)


@pytest.mark.parametrize("make", [clients.reader, clients.plain_producer, clients.admin])
def test_no_other_client_takes_what_may_not_be_set(make: Callable[[KafkaSettings], object]) -> None:
    with pytest.raises(UserError, match=r"group\.id may not be set there, set kafka\.group"):
        make(given(options={"group.id": "x"}).kafka)


def test_every_client_takes_what_an_operator_sets() -> None:
    kafka = given(options={"log_level": "0", "socket.keepalive.enable": "true", "client.rack": "a"}).kafka
    for consumer in (clients.reader(kafka), clients.reader(kafka, "error", "read_uncommitted")):
        consumer.close()
    clients.plain_producer(kafka)
    clients.quiet_admin(kafka, nothing)


@pytest.mark.parametrize(("options", "right"), [({}, 4_000_000), ({"fetch.max.bytes": "9000000"}, "9000000")])
def test_answers_with_a_backlog_are_small_unless_an_operator_sets_more(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], right: object
) -> None:
    # The client unpacks an answer as a whole, whatever its queue may hold.
    seen: list[dict[str, object]] = []

    def record(properties: dict[str, object], **callbacks: object) -> Consumer:
        seen.append(properties)
        return Consumer(properties, **callbacks)

    monkeypatch.setattr(clients, "Consumer", record)
    settings = given(options={"log_level": "0", **options})
    for consumer in (clients.group_member(settings, nothing), clients.reader(settings.kafka)):
        consumer.close()
    assert [properties["fetch.max.bytes"] for properties in seen] == [right] * 2


def imports_and_calls(path: Path) -> Iterator[str]:
    """Modules that a file imports from, and names that it calls."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield f"{node.func.id}()"


def test_no_client_is_configured_anywhere_else() -> None:
    made = {"Consumer()", "Producer()", "AdminClient()"}
    found = {
        str(path.relative_to(ROOT))
        for folder in ("stream", "models")
        for path in (ROOT / folder).rglob("*.py")
        if made & {*imports_and_calls(path)}
    }
    assert found == {"stream/kafka/clients.py"}


def test_the_contract_knows_no_kafka_client() -> None:
    found = {name for path in (ROOT / "stream/contract").rglob("*.py") for name in imports_and_calls(path)}
    # The registry's client speaks HTTP.
    assert {name for name in found if name.startswith("confluent_kafka")} == {"confluent_kafka.schema_registry"}
