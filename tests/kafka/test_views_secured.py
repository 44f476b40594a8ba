"""`tagbus views` where Kafka wants TLS, a password and rights."""

from pathlib import Path

import pytest

from tests.kafka.parts import VIEWS, Tenant
from tests.kafka.rights import LEAST
from tests.kafka.views_log import replicas, result
from tests.support import produce, wait_until

pytestmark = pytest.mark.kafka

SECONDS = 120


def test_the_least_rights_are_enough(tenant: Tenant, tmp_path: Path) -> None:
    group, tagged = tenant.names["views"], tenant.names["tagged"]
    tenant.make_topics({"tagged": 1, **VIEWS})
    tenant.may(LEAST["views"])
    plain = tenant.settings()
    given = plain.model_copy(update={"views": plain.views.model_copy(update={"group": group})})
    environment = {f"TAGBUS_{name}": value for name, value in tenant.environment().items()}
    with replicas(given, tmp_path, 1, environment) as (one,):
        one.start().until_ready()
        produce(tenant.broker.address, tagged, [(b"a", result("a", {"bees": 0.9}), [])])
        wait_until(lambda: one.get("/tags/bees")[0] == 200, SECONDS, "the result")
        one.stop()
