"""TLS and SASL against a real broker: each way in works, and what is wrong with it is one line without a secret."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tagbus.stream.errors import UserError
from tagbus.stream.kafka import metadata
from tests.bus.harness import events, exactly_once, until_all_out
from tests.cli.harness import Cli
from tests.kafka.conftest import ROBOT
from tests.kafka.issuer import Endpoint
from tests.kafka.parts import Tenant, worker
from tests.kafka.rights import LEAST
from tests.kafka.secured import SecuredKafka
from tests.support import produce

pytestmark = pytest.mark.kafka

RUN = LEAST["run (exactly_once)"]
READ = LEAST["tail tagged"]


@dataclass(frozen=True)
class Ways:
    """The ways in, each as a tenant."""

    broker: SecuredKafka
    tokens: Endpoint
    tenant: Tenant

    def scram(self) -> Tenant:
        return self.tenant

    def plain(self) -> Tenant:
        return replace(self.tenant, options={**self.tenant.options, "sasl.mechanism": "PLAIN"})

    def mutual(self) -> Tenant:
        """The certificate's CN is the principal."""
        pem = str(self.broker.certificate("machine"))
        options = {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.broker.ca),
            "ssl.certificate.location": pem,
            "ssl.key.location": pem,
        }
        return Tenant(self.broker, "machine", options, listener="MUTUAL")

    def bearer(self) -> Tenant:
        """The token's subject is the principal."""
        ((client, secret),) = ROBOT.items()
        options = {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.broker.ca),
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": client,
            "sasl.oauthbearer.token.endpoint.url": self.tokens.url,
        }
        return Tenant(self.broker, client, options, {"sasl.oauthbearer.client.secret": secret})


@pytest.fixture
def ways(secured: SecuredKafka, tokens: Endpoint, tenant: Tenant) -> Ways:
    return Ways(secured, tokens, tenant)


# In


@pytest.mark.parametrize("way", [Ways.scram, Ways.plain, Ways.mutual, Ways.bearer], ids=lambda way: way.__name__)
def test_a_worker_and_a_command_come_in(way: Callable[[Ways], Tenant], ways: Ways, tagbus: Cli) -> None:
    tenant = way(ways)
    tenant.make_topics()
    tenant.may([*RUN, *READ])
    produce(ways.broker.address, tenant.names["content"], events(3))

    run = worker(tenant.settings())
    until_all_out(ways.broker.address, tenant.names, 3)
    run.worker.stop()
    run.join()
    answer = tagbus("tail", "tagged", "--count", "3", "--as", "json", settings=tenant.environment())

    assert run.error is None
    assert answer.code == 0, answer.err
    assert {json.loads(line)["id"] for line in answer.lines} == {"c0", "c1", "c2"}
    exactly_once(ways.broker.address, tenant.names)


# Out


def wrong_password(ways: Ways) -> Tenant:
    return replace(ways.scram(), secrets={"sasl.password": "hush-wrong-hush"})


def wrong_plain_password(ways: Ways) -> Tenant:
    return replace(ways.plain(), secrets={"sasl.password": "hush-wrong-hush"})


def wrong_mechanism(ways: Ways) -> Tenant:
    return replace(ways.scram(), options={**ways.scram().options, "sasl.mechanism": "SCRAM-SHA-256"})


def wrong_client_secret(ways: Ways) -> Tenant:
    return replace(ways.bearer(), secrets={"sasl.oauthbearer.client.secret": "hush-wrong-hush"})


def unsigned_token(ways: Ways) -> Tenant:
    options = {name: value for name, value in ways.bearer().options.items() if "oauthbearer" not in name}
    unsigned = {"enable.sasl.oauthbearer.unsecure.jwt": "true"}
    return replace(ways.bearer(), options=options | unsigned, secrets={"sasl.oauthbearer.config": "principal=robot"})


def unknown_ca(ways: Ways) -> Tenant:
    options = {name: value for name, value in ways.scram().options.items() if name != "ssl.ca.location"}
    return replace(ways.scram(), options=options)


def expired(ways: Ways) -> Tenant:
    return replace(ways.scram(), listener="EXPIRED")


def another_host(ways: Ways) -> Tenant:
    return replace(ways.scram(), listener="ELSEWHERE")


def no_certificate(ways: Ways) -> Tenant:
    options = {
        name: value for name, value in ways.mutual().options.items() if name in {"security.protocol", "ssl.ca.location"}
    }
    return replace(ways.mutual(), options=options)


def no_tls_there(ways: Ways) -> Tenant:
    """The listener without TLS."""
    return replace(ways.scram(), listener="PLAINTEXT")


UNTRUSTED = re.escape(
    "tagbus: the broker's certificate is not trusted: its CA is not in ssl.ca.location, it has expired, "
    "or it names another host than kafka.brokers ("
)
_USER = r"tagbus: Kafka rejects the credentials of User:user-\d+ "
_SOMEBODY = r"tagbus: Kafka rejects the credentials of this principal "
OUT: Mapping[Callable[[Ways], Tenant], str] = {
    wrong_password: _USER + r".*invalid credentials with SASL mechanism SCRAM-SHA-512",
    wrong_plain_password: _USER + r".*Invalid username or password",
    wrong_mechanism: _USER + r".*supported mechanisms: SCRAM-SHA-512,PLAIN,OAUTHBEARER",
    wrong_client_secret: _SOMEBODY + r".*invalid_client",
    unsigned_token: _SOMEBODY + r".*invalid_token",
    unknown_ca: UNTRUSTED,
    expired: UNTRUSTED,
    another_host: UNTRUSTED,
    no_certificate: r"tagbus: the broker rejects our certificate: see ssl\.certificate\.location",
    no_tls_there: r"tagbus: no TLS with the broker: see security\.protocol in kafka\.options",
}


@pytest.mark.parametrize("wrong", OUT, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_one_line_without_a_secret(
    wrong: Callable[[Ways], Tenant], ways: Ways, tagbus: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "ASK_SECONDS", 0.5)
    tenant = wrong(ways)

    answer = tagbus("tail", "tagged", "--count", "1", settings=tenant.environment())

    assert answer.code == 2
    assert re.match(OUT[wrong], answer.one_line()), answer.err
    assert "hush" not in answer.err + answer.out


@pytest.mark.parametrize("wrong", [wrong_password, expired], ids=lambda wrong: wrong.__name__)
def test_a_worker_that_is_not_let_in_ends_and_logs_no_secret(
    wrong: Callable[[Ways], Tenant], ways: Ways, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "ASK_SECONDS", 0.5)
    caplog.set_level(logging.DEBUG)

    run = worker(wrong(ways).settings())
    run.join(120)

    assert isinstance(run.error, UserError)
    assert re.match(OUT[wrong], f"tagbus: {run.error}")
    assert "hush" not in caplog.text + str(run.error)


def test_a_command_that_makes_topics_says_so_too(ways: Ways, tagbus: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagbus.stream.cli.create.SECONDS", 0.5)

    answer = tagbus("topics", "create", settings=wrong_password(ways).environment())

    assert answer.code == 2
    assert re.match(OUT[wrong_password], answer.one_line())


def test_check_says_so_too(ways: Ways, tagbus: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagbus.stream.cli.operate.check.SECONDS", 0.5)

    answer = tagbus("check", settings=expired(ways).environment())

    assert answer.code == 3
    (line,) = (line for line in answer.lines if line.startswith("wrong"))
    assert "the broker's certificate is not trusted" in line


# Shown


def test_secrets_are_masked_wherever_settings_are_shown(ways: Ways, tagbus: Cli) -> None:
    tenant = ways.bearer()
    tenant.secrets = {"sasl.password": "hush-1", "ssl.key.password": "hush-2", **tenant.secrets}

    answer = tagbus("config", settings=tenant.environment() | {"REGISTRY__PASSWORD": "hush-3"})

    shown = json.loads(answer.out)["kafka"]
    assert shown["options"] == dict(tenant.options)
    assert set(shown["secrets"]) == set(tenant.secrets)
    assert "hush" not in answer.out + repr(tenant.settings())


def test_a_property_that_librdkafka_does_not_take_shows_no_secret(ways: Ways, tagbus: Cli) -> None:
    tenant = ways.scram()
    tenant.secrets = {"ssl.key.pem": "hush, no key"}

    answer = tagbus("tail", "tagged", settings=tenant.environment())

    assert answer.code == 2
    assert "hush" not in answer.one_line()


def test_a_certificate_is_made_once(secured: SecuredKafka) -> None:
    first: Path = secured.certificate("twice")

    assert secured.certificate("twice").read_text() == first.read_text()
