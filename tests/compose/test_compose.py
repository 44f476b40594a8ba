"""compose.yaml: right by the schema of compose files, with settings that exist and commands of tagbus."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tagbus.stream.app.data.examples import example
from tagbus.stream.cli.commands import service_commands
from tagbus.stream.config import PREFIX, Settings, load
from tagbus.stream.local.apache import SETTINGS

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: Mapping[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] in {"tagbus:local", "tagbus-views:local"}]
STAGES = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@cache
def commands() -> Mapping[str, Any]:
    return service_commands()


def loaded(name: str, patch: pytest.MonkeyPatch, **more: str) -> Settings:
    """The settings of a service, where nothing is set around compose but `more`."""
    with patch.context() as only:
        for variable, value in SERVICES[name]["environment"].items():
            known = re.fullmatch(r"\$\{(\w+):-(.*)\}", value)
            only.setenv(variable, more.get(known[1], known[2]) if known else value)
        return load()


def test_it_is_right_by_the_schema() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)


def test_what_it_names_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= SERVICES.keys(), name
        assert {each["source"] for each in service.get("configs", [])} <= COMPOSE["configs"].keys()
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("./helm/tagbus/")
        if "build" in service:
            assert service["build"]["target"] in STAGES


@pytest.mark.parametrize("name", OURS)
def test_settings_exist_and_fit_each_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(name, monkeypatch)
    assert all(variable.startswith(PREFIX) for variable in SERVICES[name]["environment"])
    assert found.llm.url is None
    assert {found.kafka.brokers.split(":")[0], found.encoder.address.split(":")[0]} <= SERVICES.keys()
    assert re.fullmatch(r"http://(\w+):6333", found.memory.url)[1] in SERVICES  # type: ignore[index]
    # One broker.
    assert found.topics.replication == 1


def test_the_judge_is_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SERVICES["llm"]["profiles"] == ["llm"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["llm"]
    asked = loaded("tagger", monkeypatch, TAGBUS_LLM__URL="http://llm:8000/v1")
    assert asked.llm.url == "http://llm:8000/v1"
    assert SERVICES["llm"]["entrypoint"][-1] == "8000"
    assert "sparrow-decider" in (ROOT / "images" / "cpu.txt").read_text().split()


def test_commands_are_those_of_tagbus() -> None:
    for name in OURS:
        if "entrypoint" not in SERVICES[name]:
            assert SERVICES[name]["command"][0] in commands()
    for line in SERVICES["topics"]["command"][0].split(" && "):
        assert line.split()[1] in commands()
    script = SERVICES["demo"]["command"][0]
    for command, file in re.findall(r"tagbus (\w+) (\S+)", script):
        assert command in commands()
        assert example(file).is_file()


def test_topics_are_there_before_what_reads_them() -> None:
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in OURS:
        if name not in {"topics", "llm"}:
            assert SERVICES[name]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_a_stop_waits_for_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        assert (
            int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
            >= loaded(name, monkeypatch).batch.drain_seconds + 20
        )


def test_nobody_but_this_machine_is_let_in_and_nothing_writes_to_its_root() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not service.get("privileged")
        if "build" in service:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]


def test_prometheus_reads_every_service_that_has_metrics_as_a_job_of_its_own() -> None:
    """Rules go by job: what feedback commits must not hide a tagger that stands still."""
    config = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    jobs = {job["job_name"]: job["dns_sd_configs"] for job in config["scrape_configs"] if "dns_sd_configs" in job}
    assert jobs.keys() == set(OURS) - {"topics", "demo", "llm"}
    for name, found in jobs.items():
        assert found == [{"names": [name], "type": "A", "port": Settings().health.port}]
    for name in ("grafana-sources", "grafana-dashboards"):
        assert yaml.safe_load(COMPOSE["configs"][name]["content"])["apiVersion"] == 1


def test_kafka_is_one_node_that_needs_no_other() -> None:
    """What a broker alone must be told is what the tests tell Apache Kafka itself."""
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in SERVICES["kafka"]["environment"].items()
    }
    factors = {name: value for name, value in SETTINGS.items() if name.endswith(("replication.factor", "min.isr"))}
    assert factors
    assert {name: given.get(name) for name in factors} == {name: str(value) for name, value in factors.items()}
