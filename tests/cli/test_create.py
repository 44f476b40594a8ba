"""`tagbus topics create` on Apache Kafka; what it mends is in tests/kafka/test_defaults.py."""

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.cli.harness import Cli
from tests.cli.records.test_publish import PARTITIONS, TOPICS, made, settings
from tests.conftest import Broker
from tests.support import create_topics, unique

__all__ = ["made"]


def configuration(kafka: Broker, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": kafka.address})
    found = admin.describe_configs([resource])[resource].result(120)
    return {name: entry.value for name, entry in found.items()}


def test_the_memory_topics_are_compacted_and_the_others_kept_by_time(kafka: Broker, made: dict[str, str]) -> None:
    for name in ("TAGS", "EXEMPLARS", "KNOWLEDGE"):
        found = configuration(kafka, made[f"TOPICS__{name}"])
        assert found["cleanup.policy"] == "compact"
        assert found["delete.retention.ms"] == "86400000"
    for name in ("VERSIONS", "RELEASES", "FEEDBACK_STATE"):
        assert configuration(kafka, made[f"TOPICS__{name}"])["cleanup.policy"] == "compact"
    for name in ("CONTENT", "TAGGED", "DEAD_LETTERS", "FEEDBACK", "FEEDBACK_DEAD_LETTERS"):
        assert configuration(kafka, made[f"TOPICS__{name}"])["cleanup.policy"] == "delete"


def test_a_second_time_changes_nothing(made: dict[str, str], tagbus: Cli) -> None:
    answer = tagbus("topics", "create", settings=made)
    assert answer.code == 0
    assert [line.split(" ", 1)[1] for line in answer.err.splitlines()] == ["exists already"] * len(TOPICS)


def test_it_says_what_it_made(kafka: Broker, tagbus: Cli) -> None:
    given = settings(kafka)
    answer = tagbus("topics", "create", settings=given)
    assert f"created {given['TOPICS__TAGS']} with {PARTITIONS} partitions" in answer.err.splitlines()


def test_the_views_get_their_topics_with_as_many_partitions_as_tagged(
    kafka: Broker, made: dict[str, str], tagbus: Cli
) -> None:
    group = unique("views")
    given = made | {"VIEWS__GROUP": group, "TOPICS__PARTITIONS": str(PARTITIONS + 1)}
    answer = tagbus("topics", "create", "--views", settings=given)
    assert answer.code == 0
    assert f"created {group}-changes with {PARTITIONS} partitions" in answer.err.splitlines()
    assert configuration(kafka, f"{group}-changes")["cleanup.policy"] == "delete"
    for table in ("contents", "tags"):
        assert configuration(kafka, f"{group}-{table}-changelog")["cleanup.policy"] == "compact"
    again = tagbus("topics", "create", "--views", settings=given)
    assert f"{group}-tags-changelog exists already" in again.err.splitlines()


def test_topics_of_the_views_with_other_partitions_are_named(kafka: Broker, made: dict[str, str], tagbus: Cli) -> None:
    group = unique("views")
    create_topics(kafka.address, {f"{group}-changes": PARTITIONS + 1})
    answer = tagbus("topics", "create", "--views", settings=made | {"VIEWS__GROUP": group})
    assert answer.code == 3
    words = f"{PARTITIONS + 1} partitions, expected the {PARTITIONS} of {made['TOPICS__TAGGED']}"
    assert f"{group}-changes exists already; {words}" in answer.err


def test_views_and_a_backfill_do_not_go_together(kafka: Broker, tagbus: Cli) -> None:
    answer = tagbus("topics", "create", "--views", "--output", "again", settings=settings(kafka))
    assert answer.code == 2
    assert "--views: " in answer.one_line()


def test_a_setting_that_the_broker_refuses_is_the_users_mistake(kafka: Broker, tagbus: Cli) -> None:
    answer = tagbus("topics", "create", settings=(settings(kafka) | {"TOPICS__REPLICATION": "3"}))
    assert answer.code == 2
    assert "was not created: " in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("output", "words"),
    [("tagged", "is a live topic: old results would replace newer"), ("again", ": {} is a live topic")],
)
def test_a_backfill_whose_topics_are_live_ones_is_refused(kafka: Broker, tagbus: Cli, output: str, words: str) -> None:
    own = unique(output)
    given = settings(kafka) | {"TOPICS__TAGGED": own if output == "tagged" else unique("tagged")}
    given |= {"TOPICS__DEAD_LETTERS": f"{own}.dlq"}
    answer = tagbus("topics", "create", "--output", own, settings=given)
    assert answer.code == 2
    assert f"--output {own}" in answer.one_line()
    assert words.format(f"{own}.dlq") in answer.one_line()
