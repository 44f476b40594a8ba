"""People's corrections take effect immediately, on Apache Kafka, also for a content that is tagged again."""

import json
from collections.abc import Callable, Mapping

import pytest

from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Exemplar, Tag
from tests.bus.harness import event, running, settings, until_all_out
from tests.conftest import Broker
from tests.index.parts import memory
from tests.kafka.service import Service
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

COMPACT: Layout = (1, {"cleanup.policy": "compact"})
SECONDS = 120.0
CONTENT = (b"a", event("a", "Keeping bees in the city."), [])


@pytest.mark.parametrize("duplicates", ["publish", "skip"])
def test_a_tag_that_people_reject_is_gone_when_the_content_comes_again(
    kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]], duplicates: str
) -> None:
    names = topics(
        {"content": 1, "tagged": 1, "dead_letters": 1, "feedback": 1}
        | {"exemplars": COMPACT, "tags": COMPACT, "versions": COMPACT}
    )
    given = settings(kafka.address, names, triage={"duplicates": duplicates})
    tags = [encode_record(Tag(id="bees", name="beekeeping")), encode_record(Tag(id="city", name="cities"))]
    produce(kafka.address, names["tags"], [(one.key, one.value, []) for one in tags])
    service = Service(given, memory())
    with running(given, service, service.gate) as run:
        run.until_ready()
        # Given a content that is tagged
        produce(kafka.address, names["content"], [CONTENT])
        until_all_out(kafka.address, names, 1)
        # When people reject one of its tags, and it is published once more
        rejected = encode_record(Exemplar(id="a", text="Keeping bees in the city.", rejected=("bees",)))
        before = service.revision()
        produce(kafka.address, names["exemplars"], [(rejected.key, rejected.value, [])])
        wait_until(lambda: service.revision() != before, SECONDS, "the correction in memory")
        produce(kafka.address, names["content"], [CONTENT])
        until_all_out(kafka.address, names, 2)
    # Then that tag is removed, and the other one stays
    first, second = (json.loads(message.value() or b"") for message in consume_all(kafka.address, names["tagged"]))
    assert {tag["id"] for tag in first["tags"]} == {"bees", "city"}
    assert {tag["id"] for tag in second["tags"]} == {"city"}
