"""`tagbus views` where Kafka wants TLS, a password and rights."""

from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.kafka.parts import Tenant
from tests.kafka.rights import Right
from tests.kafka.views_log import layouts, replicas, result
from tests.support import create_topics, produce, unique, wait_until

pytestmark = pytest.mark.kafka

SECONDS = 120


def grant(tenant: Tenant, group: str) -> None:
    """What docs/operator.md lists: Read and Write on topics, Read on groups, by prefix."""
    rights = [(ResourceType.TOPIC, AclOperation.READ), (ResourceType.TOPIC, AclOperation.WRITE)]
    rights += [(ResourceType.GROUP, AclOperation.READ)]
    acls = [
        AclBinding(
            kind, group, ResourcePatternType.PREFIXED, f"User:{tenant.user}", "*", right, AclPermissionType.ALLOW
        )
        for kind, right in rights
    ]
    admin = AdminClient({"bootstrap.servers": tenant.broker.address})
    for future in admin.create_acls(acls).values():
        future.result(120)
    tenant.may([Right("Read", "topic", "tagged")])


def test_the_rights_in_the_docs_are_enough(tenant: Tenant, tmp_path: Path) -> None:
    group, tagged = unique("views"), tenant.names["tagged"]
    create_topics(tenant.broker.address, {tagged: 1, **layouts(1, group)})
    grant(tenant, group)
    plain = tenant.settings()
    given = plain.model_copy(update={"views": plain.views.model_copy(update={"group": group})})
    environment = {f"TAGBUS_{name}": value for name, value in tenant.environment().items()}
    with replicas(given, tmp_path, 1, environment) as (one,):
        one.start().until_ready()
        produce(tenant.broker.address, tagged, [(b"a", result("a", {"bees": 0.9}), [])])
        wait_until(lambda: one.get("/tags/bees")[0] == 200, SECONDS, "the result")
        one.stop()
