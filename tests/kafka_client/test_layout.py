"""How a topic differs from the one that tagbus needs."""

from collections.abc import Mapping

import pytest

from tagbus.stream.config import Settings
from tagbus.stream.kafka.admin.layout import KAFKA_BYTES, Difference, TopicState, compacted, differences, layout

GIVEN = Settings.model_validate({"topics": {"partitions": 4, "replication": 2}})
DEFAULTS = {"max.message.bytes": str(KAFKA_BYTES), "delete.retention.ms": "86400000"}


def state(policy: str = "delete", partitions: int = 4, replicas: int = 2, **settings: str) -> TopicState:
    more = {name.replace("_", "."): value for name, value in settings.items()}
    return TopicState(partitions, replicas, {**DEFAULTS, "cleanup.policy": policy, **more})


def found(name: str, one: TopicState, **others: TopicState) -> list[Difference]:
    return differences(GIVEN, name, {name: one, **others})


def test_a_topic_as_it_is_created_does_not_differ() -> None:
    for name, wanted in layout(GIVEN).items():
        one = TopicState(wanted.partitions, wanted.replication, {**DEFAULTS, **wanted.configuration})
        assert found(name, one) == []


def test_one_that_has_more_than_it_needs_does_not_differ() -> None:
    more = {"max_message_bytes": "9000000", "delete_retention_ms": "999999999"}
    assert found("exemplars", state("compact", 100, 3, **more)) == []


def test_the_topics_of_which_the_last_record_of_each_key_is_needed() -> None:
    assert set(compacted(GIVEN)) == {"tags", "exemplars", "knowledge", "content.versions", "releases", "feedback.state"}


@pytest.mark.parametrize(
    ("name", "one", "words", "settings"),
    [
        ("tags", state("delete"), "cleanup.policy is delete, expected compact", {"cleanup.policy": "compact"}),
        ("tags", state("compact,delete"), "cleanup.policy is compact,delete, expected compact", None),
        # Without compaction the broker would remove what is old, so nobody but a person ends it.
        ("content", state("compact"), "cleanup.policy is compact, expected delete", {}),
        ("tagged", state("compact,delete"), "cleanup.policy is compact,delete, expected delete", {}),
        (
            "knowledge",
            state("compact", delete_retention_ms="1000"),
            "delete.retention.ms is 1000, expected at least 86400000",
            {"delete.retention.ms": "86400000"},
        ),
        (
            "content.dlq",
            state(max_message_bytes="1000"),
            "max.message.bytes is 1000, expected at least 1048000",
            {"max.message.bytes": "1048000"},
        ),
    ],
)
def test_a_setting_that_loses_records(
    name: str, one: TopicState, words: str, settings: Mapping[str, str] | None
) -> None:
    (difference,) = found(name, one)
    assert (difference.words, difference.harmful, difference.partitions) == (words, True, None)
    if settings is not None:
        assert difference.settings == settings


def test_versions_need_a_partition_for_each_of_content() -> None:
    (difference,) = found("content.versions", state("compact", 4), content=state(partitions=6))
    assert difference.words == "4 partitions, expected at least the 6 of content"
    assert (difference.harmful, difference.partitions) == (True, 6)


def test_the_state_of_feedback_needs_a_partition_for_each_of_feedback() -> None:
    (difference,) = found("feedback.state", state("compact", 4), feedback=state(partitions=6))
    assert difference.words == "4 partitions, expected at least the 6 of feedback"
    assert (difference.harmful, difference.partitions) == (True, 6)


def test_fewer_partitions_or_replicas_than_in_the_settings_do_no_harm() -> None:
    partitions, replicas = found("tagged", state(partitions=1, replicas=1))
    assert (partitions.words, partitions.harmful, partitions.partitions) == (
        "1 partitions, 4 in the settings",
        False,
        4,
    )
    assert (replicas.words, replicas.harmful, replicas.settings) == ("1 replicas, 2 in the settings", False, {})


def test_what_is_not_disclosed_does_not_differ() -> None:
    assert found("tags", TopicState(4, 2, None)) == []


def test_a_limit_above_kafkas_is_set_when_the_topic_is_created() -> None:
    large = Settings.model_validate({"batch": {"record_bytes": 4_000_000}})
    assert layout(large)["tagged"].configuration == {"cleanup.policy": "delete", "max.message.bytes": "4048000"}
    assert layout(GIVEN)["tagged"].configuration == {"cleanup.policy": "delete"}
