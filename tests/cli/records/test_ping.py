"""`tagbus ping` on Apache Kafka, beside a worker and beside none."""

from collections.abc import Callable, Mapping

import pytest

from tagbus.stream.contract.fields import TEST_ID
from tests.bus.harness import running
from tests.bus.harness import settings as worker_settings
from tests.bus.taggers import Trivial
from tests.cli.harness import Cli
from tests.cli.records.test_publish import settings
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce

Make = Callable[[Mapping[str, Layout]], dict[str, str]]
TOPICS = ("content", "tagged", "dead_letters", "exemplars", "feedback", "versions")


@pytest.fixture
def names(topics: Make) -> dict[str, str]:
    return topics(dict.fromkeys(TOPICS, 1))


def test_a_content_is_tagged_and_withdrawn(kafka: Broker, names: dict[str, str], tagbus: Cli) -> None:
    with running(worker_settings(kafka.address, names), Trivial()) as run:
        run.until_ready()
        answer = tagbus("ping", settings=settings(kafka, names))

    assert answer.code == 0, answer.err
    tagged, withdrawn = answer.lines
    assert tagged.startswith(TEST_ID)
    assert "is tagged after" in tagged
    assert "is withdrawn after" in withdrawn
    records = consume_all(kafka.address, names["tagged"])
    assert [record.value() is None for record in records] == [False, True]
    assert {record.key() for record in records} == {tagged.split()[0].encode()}


def test_a_result_of_before_is_no_answer(kafka: Broker, names: dict[str, str], tagbus: Cli) -> None:
    produce(kafka.address, names["tagged"], [(b"other", None, [])])
    answer = tagbus("ping", "--seconds", "1", settings=settings(kafka, names))
    assert answer.code == 4


def test_without_a_worker_it_says_where_to_look_and_leaves_nothing(
    kafka: Broker, names: dict[str, str], tagbus: Cli
) -> None:
    answer = tagbus("ping", "--seconds", "1", settings=settings(kafka, names))

    assert answer.code == 4
    assert f"topic {names['tagged']} has no result of {TEST_ID}" in answer.one_line()
    assert names["dead_letters"] in answer.one_line()
    # A worker that starts later withdraws it again.
    assert [record.value() is None for record in consume_all(kafka.address, names["content"])] == [False, True]
