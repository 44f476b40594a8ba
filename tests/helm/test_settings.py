"""The settings that the chart gives: each one exists, has the value that was meant, and the schema knows them all."""

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tagbus.stream.app.components import REGISTRY
from tagbus.stream.config import PREFIX, Settings, load
from tagbus.stream.config.kafka import CONFIDENTIAL
from tests.helm import chart
from tests.helm.test_objects import CASES, rendered

SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text())


def loaded(environment: Mapping[str, str], patch: pytest.MonkeyPatch) -> Settings:
    """The settings as a process in that pod reads them."""
    with patch.context() as only:
        for name, value in environment.items():
            if name.startswith(PREFIX):
                only.setenv(name, value)
        return load()


def of(component: str, case: str, patch: pytest.MonkeyPatch) -> Settings:
    objects = rendered(case)
    (pod,) = [pod for name, pod in chart.pods(objects) if name.endswith(f"-{component}")]
    return loaded(chart.variables(objects, pod), patch)


@pytest.mark.parametrize("case", CASES)
def test_tagbus_reads_the_settings_of_every_pod(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(case)
    for name, pod in chart.pods(objects):
        if name != "Deployment release-tagbus-triton" and name != "Deployment tags-triton":
            found = loaded(chart.variables(objects, pod), monkeypatch)
            assert found.health.host == "0.0.0.0", name  # noqa: S104 - probes come from the node


def test_values_arrive_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of("tagger", "everything", monkeypatch)
    assert found.kafka.options == {"security.protocol": "SSL"}
    assert found.batch.in_flight_bytes == 128_000_000
    assert found.encoder.providers == ("cuda", "cpu")
    (literal,) = (one.settings.model_validate(found.components["literal"]) for one in REGISTRY if one.name == "literal")
    assert literal.model_dump() == {"enabled": True, "languages": "en,de"}
    assert found.memory.url == "http://qdrant:6333"


@pytest.mark.parametrize("given", ["values", "--set"])
def test_large_numbers_arrive_as_digits(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    views = {"window_seconds": [86_400, 1_209_600]}
    values = {"settings": {"views": views, "batch": {"in_flight_bytes": 1_000_000}}, "views": {"enabled": True}}
    flags = ("--set=settings.views.window_seconds={86400,1209600}", "--set=settings.batch.in_flight_bytes=1000000")
    done = chart.run(
        ("template", chart.RELEASE),
        *(flags if given == "--set" else ()),
        values=values if given == "values" else {"views": {"enabled": True}},
    )
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    data = chart.one(objects, "ConfigMap", "views")["data"]
    assert (data["TAGBUS_VIEWS__WINDOW_SECONDS"], data["TAGBUS_BATCH__IN_FLIGHT_BYTES"]) == ("86400,1209600", "1000000")
    assert loaded(data, monkeypatch).views.window_seconds == (86_400, 1_209_600)


def test_what_the_chart_runs_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of("tagger", "default", monkeypatch).encoder.kind == "in_process"
    encoder = of("tagger", "triton", monkeypatch).encoder
    assert (encoder.kind, encoder.address) == ("triton", "release-tagbus-triton:8001")
    assert str(of("tagger", "everything", monkeypatch).releases.folder) == "/var/lib/tagbus/releases"
    assert str(of("tagger", "a disk", monkeypatch).memory.path) == "/var/lib/tagbus/memory"
    views = of("views", "views", monkeypatch)
    assert (views.views.host, str(views.views.folder)) == ("0.0.0.0", "/var/lib/tagbus/views")  # noqa: S104
    assert views.memory.path is None


def test_settings_of_one_process_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "settings": {"batch": {"contents": 64}},
        "feedback": {"settings": {"batch": {"contents": 32, "seconds": 1.5}}},
    }
    objects = chart.render(values)
    found = {
        name.rpartition("-")[2]: loaded(chart.variables(objects, pod), monkeypatch).batch
        for name, pod in chart.pods(objects)
    }
    assert {name: batch.contents for name, batch in found.items()} == {
        "tagger": 64,
        "feedback": 32,
        "topics": 64,
        "check": 64,
        "test": 64,
    }
    assert found["feedback"].seconds == 1.5


def test_changed_settings_change_the_pod_that_has_them_alone() -> None:
    def checksums(values: Mapping[str, Any]) -> dict[str, str]:
        return {
            each["metadata"]["name"]: each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
            for each in chart.render(values)
            if each["kind"] == "StatefulSet"
        }

    before, after = checksums({}), checksums({"tagger": {"settings": {"batch": {"contents": 64}}}})
    assert before["release-tagbus-tagger"] != after["release-tagbus-tagger"]
    assert before["release-tagbus-feedback"] == after["release-tagbus-feedback"]


@pytest.mark.parametrize("case", CASES)
def test_a_pod_is_stopped_after_its_drain(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(case)
    for name, pod in chart.pods(objects):
        if name.startswith("StatefulSet"):
            drain = loaded(chart.variables(objects, pod), monkeypatch).batch.drain_seconds
            assert pod["spec"]["terminationGracePeriodSeconds"] >= drain + 20


def test_a_longer_drain_is_waited_for() -> None:
    objects = chart.render({"settings": {"batch": {"drain_seconds": 90.5}}})
    pod = chart.one(objects, "StatefulSet", "tagger")["spec"]["template"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 116


def test_a_pod_that_does_not_live_by_its_startup_seconds_is_killed() -> None:
    objects = chart.render({"tagger": {"startupSeconds": 1801}})
    (container,) = chart.one(objects, "StatefulSet", "tagger")["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    # It asks whether the process lives, not whether its memory is built: that may take any time.
    assert probe["httpGet"]["path"] == "/livez"
    assert 1801 <= probe["failureThreshold"] * probe["periodSeconds"] < 1801 + probe["periodSeconds"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_schema_has_the_settings_of_the_code() -> None:
    path = chart.ROOT / "helm" / "settings_schema.py"
    spec = importlib.util.spec_from_file_location("settings_schema", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert SCHEMA["$defs"]["settings"] == module.settings_schema(), "run `make reference`"


def secret_settings() -> set[tuple[str, str]]:
    """The sections and fields that hold a secret, from the code."""
    sections = {name: type(value) for name, value in Settings() if isinstance(value, BaseModel)}
    return {
        (section, name)
        for section, model in sections.items()
        for name, field in model.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }


def test_each_setting_that_holds_a_secret_is_no_value_and_comes_from_a_secret() -> None:
    # Given every one of `secrets`; kafkaPassword and kafkaSecrets are two ways to give one setting
    secrets = {name: {"name": "s", "key": name} for name in chart.VALUES["secrets"] if name != "kafkaPassword"}
    assert SCHEMA["properties"]["secrets"]["properties"].keys() == chart.VALUES["secrets"].keys()

    objects = chart.render({"secrets": secrets})

    # Then each secret setting of the code comes from its Secret, in every process
    assert secret_settings()
    wanted = {f"{PREFIX}{section}__{name}".upper() for section, name in secret_settings()}
    for name, pod in chart.pods(objects):
        (container,) = pod["spec"]["containers"]
        keys = {
            entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"]
            for entry in container["env"]
            if "secretKeyRef" in entry.get("valueFrom", {})
        }
        assert keys.keys() == wanted, name
        assert set(keys.values()) == secrets.keys()
    # And none may stand in `settings`
    settings = SCHEMA["$defs"]["settings"]["properties"]
    assert not [field for section, field in secret_settings() if field in settings[section]["properties"]]
    assert settings["kafka"]["properties"]["options"]["properties"].keys() == CONFIDENTIAL


def known(schema: Any, value: Any, path: str) -> list[str]:
    """The paths of values that no property of the schema names."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "allOf" in schema:
        return known(schema["allOf"][0], value, path)
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    missing = [f"{path}.{name}" for name in value.keys() - schema["properties"].keys()]
    assert schema["additionalProperties"] is False, path
    return missing + [
        each
        for name in value.keys() & schema["properties"].keys()
        for each in known(schema["properties"][name], value[name], f"{path}.{name}")
    ]


def test_the_schema_names_every_value_and_no_other() -> None:
    assert known(SCHEMA, chart.VALUES, "") == []
    # `global` is helm's.
    assert SCHEMA["properties"].keys() - chart.VALUES.keys() == {"global"}


def test_defaults_that_the_chart_repeats_are_those_of_the_code() -> None:
    given, code = chart.VALUES["settings"], Settings()
    assert given["topics"] == {"partitions": code.topics.partitions, "replication": code.topics.replication}
    assert given["memory"]["kind"] == code.memory.kind
    assert given["health"]["port"] == code.health.port
