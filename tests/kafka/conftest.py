"""A broker with TLS, SASL and ACLs for the tests of this folder, and principals on it."""

from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tagbus.stream.local.apache import ApacheKafka
from tests.cli.harness import Cli
from tests.kafka.issuer import Endpoint, endpoint
from tests.kafka.parts import Tenant, tenants
from tests.kafka.secured import Listener, SecuredKafka
from tests.support import Layout, wait_until

# The tests take a principal each, so that no test's ACLs serve another.
USERS = {f"user-{number}": f"hush-{number}-hush" for number in range(200)}
ROBOT = {"robot": "hush-robot-hush"}
LISTENERS = (
    Listener(),
    Listener("MUTUAL", "SSL"),
    Listener("EXPIRED", days=-1),
    Listener("ELSEWHERE", host="elsewhere.example"),
)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Where `robot` gets its tokens."""
    with endpoint(tmp_path_factory.mktemp("issuer"), ROBOT) as served:
        yield served


@pytest.fixture(scope="session")
def secured(apache: Callable[..., ApacheKafka], tokens: Endpoint) -> Iterator[SecuredKafka]:
    """One for all tests; `apache` is asked for because it skips where Kafka cannot run."""
    with SecuredKafka(USERS, LISTENERS, tokens.trusted) as broker:
        wait_until(lambda: _coordinates(broker), 120, "a broker that knows its groups")
        yield broker


def _coordinates(broker: SecuredKafka) -> bool:
    """Whether it answers for groups: the topic of their offsets is made when the first is asked for."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    try:
        admin.describe_consumer_groups(["any"], request_timeout=10)["any"].result()
    except KafkaException:
        return False
    return True


@pytest.fixture(scope="session")
def _tenants(secured: SecuredKafka) -> Iterator[Tenant]:
    return tenants(secured, USERS)


@pytest.fixture
def tenant(_tenants: Iterator[Tenant]) -> Tenant:
    """An unused principal."""
    return next(_tenants)


@pytest.fixture
def names(topics: Callable[[Mapping[str, Layout]], dict[str, str]]) -> dict[str, str]:
    """Topics of this test alone, by their word: some with fewer partitions than `content`."""
    return topics({"content": 4, "tagged": 3, "dead_letters": 2, "exemplars": 2, "feedback": 1, "versions": 4})


@pytest.fixture
def tagbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`tagbus("tail", "tagged")` runs the command in this process."""
    return Cli(monkeypatch, capsys)
