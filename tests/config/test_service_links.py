"""Variables that Kubernetes and Docker make for a service are ignored; all others with the prefix are settings."""

import logging
import re

import pytest

from tagbus.stream.config import Settings, load
from tagbus.stream.errors import UserError
from tests.cli.harness import Cli, clean


def kubernetes(service: str, ip: str, port: int, name: str, protocol: str = "TCP") -> dict[str, str]:
    """The variables of a pod beside a Service, after Kubernetes' source (pkg/kubelet/envvars)."""
    upper = service.upper().replace("-", "_")
    host = f"[{ip}]" if ":" in ip else ip
    url, prefix = f"{protocol.lower()}://{host}:{port}", f"{upper}_PORT_{port}_{protocol}"
    return {
        f"{upper}_SERVICE_HOST": ip,
        f"{upper}_SERVICE_PORT": str(port),
        f"{upper}_SERVICE_PORT_{name.upper().replace('-', '_')}": str(port),
        f"{upper}_PORT": url,
        prefix: url,
        f"{prefix}_PROTO": protocol.lower(),
        f"{prefix}_PORT": str(port),
        f"{prefix}_ADDR": ip,
    }


def docker(alias: str) -> dict[str, str]:
    """The variables of a container with a link of this alias, after Docker's page on legacy links."""
    upper = alias.upper().replace("-", "_")
    return {
        f"{upper}_NAME": f"/app/{alias}",
        f"{upper}_PORT": "tcp://172.17.0.5:9092",
        f"{upper}_PORT_9092_TCP": "tcp://172.17.0.5:9092",
        f"{upper}_PORT_9092_TCP_PROTO": "tcp",
        f"{upper}_PORT_9092_TCP_PORT": "9092",
        f"{upper}_PORT_9092_TCP_ADDR": "172.17.0.5",
        f"{upper}_ENV_PATH": "/usr/bin:/bin",
        f"{upper}_ENV_password": "hush",
    }


SERVICES = {
    "tagbus": kubernetes("tagbus", "10.0.0.5", 80, "http"),
    "ipv6": kubernetes("tagbus", "fd00:10::5", 8780, "metrics"),
    "udp": kubernetes("tagbus", "10.0.0.5", 53, "dns", "UDP"),
    "views": kubernetes("tagbus-views", "10.0.0.6", 6066, "web-ui"),
    "a section's name": kubernetes("tagbus-kafka", "10.0.0.7", 9092, "client"),
    "a field's name": kubernetes("tagbus-kafka--start", "10.0.0.7", 9092, "client"),
    "a link": docker("tagbus"),
    "a link named as a section": docker("tagbus-kafka"),
    "an address alone": {"TAGBUS_KAFKA": "tcp://10.0.0.5:9092"},
}


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
def test_a_service_beside_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, service: dict[str, str]
) -> None:
    for name, value in service.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TAGBUS_HEALTH__PORT", "0")

    with caplog.at_level(logging.DEBUG):
        settings = load()

    assert settings.kafka == Settings.model_construct().kafka
    assert settings.health.port == 0
    assert all(name in caplog.text for name in service)
    assert "hush" not in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TAGBUS_PORT", "8780"),
        ("TAGBUS_HEALTH_PORT", "8780"),
        ("TAGBUS_PORT", "tcp://somewhere:80"),
        ("TAGBUS_SERVICE_HOST", "somewhere"),
        ("TAGBUS_SERVICE_PORT", "many"),
        ("TAGBUS_SERVICE_PORT", "80000"),
        ("TAGBUS_PORT_80_TCP_PROTO", "http"),
        ("TAGBUS_KAFKA_BROKERS", "tcp://10.0.0.5:9092"),
        ("TAGBUS_NAME", "tagbus"),
        ("TAGBUS_NAME", "/app/tagbus"),
        ("TAGBUS_ENV_PATH", "/usr/bin"),
        ("tagbus_port", "tcp://10.0.0.5:80"),
    ],
)
def test_a_name_or_a_value_that_they_do_not_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(UserError, match=f"{variable} is not a setting"):
        load()


def test_a_setting_with_an_address_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGBUS_HEALTH__PORT", "tcp://10.0.0.5:80")

    with pytest.raises(UserError, match=re.escape("TAGBUS_HEALTH__PORT='tcp://10.0.0.5:80'")):
        load()


def test_a_command_starts_beside_a_service(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tagbus = Cli(monkeypatch, capsys)
    expected = tagbus("config")
    for name, value in SERVICES["tagbus"].items():
        monkeypatch.setenv(name, value)

    assert tagbus("config") == expected
    assert expected.code == 0
