"""librdkafka's security settings for aiokafka: applied faithfully, or refused with the property's name."""

import ssl
from pathlib import Path

import faust
import pytest
from pydantic import SecretStr

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import UserError
from tagbus.stream.views.security import credentials, servers


def kafka(options: dict[str, str], **secrets: str) -> KafkaSettings:
    hidden = {name.replace("_", "."): SecretStr(value) for name, value in secrets.items()}
    return KafkaSettings(options=options, secrets=hidden)


def test_without_security_there_are_no_credentials() -> None:
    assert credentials(kafka({"socket.keepalive.enable": "true"})) is None


def test_a_user_and_a_password_are_followed() -> None:
    options = {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": "me"}
    found = credentials(kafka(options, sasl_password="hush"))
    assert isinstance(found, faust.SASLCredentials)
    assert (found.username, found.password) == ("me", "hush")
    assert str(found.mechanism.value) == "SCRAM-SHA-512"
    assert found.protocol.value == "SASL_PLAINTEXT"


def test_tls_verifies_the_host_by_default() -> None:
    found = credentials(kafka({"security.protocol": "SSL"}))
    assert isinstance(found, faust.SSLCredentials)
    assert found.context.check_hostname
    assert found.context.verify_mode == ssl.CERT_REQUIRED
    other = credentials(kafka({"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"}))
    assert isinstance(other, faust.SSLCredentials)
    assert not other.context.check_hostname
    assert other.context.verify_mode == ssl.CERT_REQUIRED
    off = credentials(kafka({"security.protocol": "SSL", "enable.ssl.certificate.verification": "false"}))
    assert isinstance(off, faust.SSLCredentials)
    assert off.context.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"security.protocol": "TLS"}, "security.protocol is 'TLS', expected PLAINTEXT, SSL"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}, "sasl.mechanism is 'OAUTHBEARER'"),
        ({"ssl.crl.location": "/x"}, "ssl.crl.location is not for `tagbus views`"),
        ({"sasl.oauthbearer.method": "oidc"}, "sasl.oauthbearer.method is not for `tagbus views`"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        credentials(kafka(options))


def test_a_missing_file_is_an_error_without_a_trace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ssl"):
        credentials(kafka({"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "none.pem")}))


def test_a_key_that_is_none_is_not_shown() -> None:
    options = {"security.protocol": "SSL", "ssl.certificate.pem": "no certificate"}
    with pytest.raises(UserError) as raised:
        credentials(kafka(options, ssl_key_pem="hush-hush"))
    assert "hush" not in str(raised.value)


def test_brokers_are_urls_without_the_protocol_of_a_listener() -> None:
    found = servers(KafkaSettings(brokers="SASL_SSL://one:9093,[::1]:9092"))
    assert found == ["kafka://one:9093", "kafka://[::1]:9092"]
