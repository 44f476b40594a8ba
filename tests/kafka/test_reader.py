"""A topic that may not be read, on a broker with ACLs: the error says what to grant, and no group is needed."""

import pytest

from tagbus.stream.errors import UserError
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter
from tests.kafka.parts import Tenant
from tests.kafka.rights import Right
from tests.support import produce, wait_until

pytestmark = pytest.mark.kafka

READ = Right("Read", "topic", "tags")
DESCRIBE = Right("Describe", "topic", "tags")


@pytest.mark.parametrize("rights", [[], [DESCRIBE]], ids=["nothing", "describe"])
def test_a_missing_right_is_named(rights: list[Right], tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may(rights)
    topic = tenant.names["tags"]
    produce(tenant.broker.address, topic, [(b"a", b"value", [])])

    with TopicReader(tenant.settings().kafka) as reader:

        def read() -> bool:
            reader.discover([topic])
            return bool(reader.read(1, 0.2).messages)

        with pytest.raises(UserError, match=f"User:{tenant.user}: grant Read on topic {topic} "):
            wait_until(read, 120, "an error")


def test_reading_needs_no_right_on_a_group(tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may([READ])
    topic = tenant.names["tags"]
    produce(tenant.broker.address, topic, [(b"a", b"value", [])])

    with TopicReader(tenant.settings().kafka) as reader:
        reader.discover([topic])
        (message,) = wait_until(lambda: reader.read(1, 0.2).messages, 120, "the record")
        assert message.key() == b"a"


def test_writing_names_its_right_before_anything_is_sent(tenant: Tenant) -> None:
    tenant.make_topics()
    tenant.may([READ])
    topic = tenant.names["tags"]

    with pytest.raises(UserError, match=f"User:{tenant.user}: grant Write on topic {topic} "):
        TopicWriter(tenant.settings().kafka, topic)
