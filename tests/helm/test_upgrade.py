"""What no upgrade may change: names, selectors, and what else Kubernetes refuses to change."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.helm import chart
from tests.helm.chart import Object

CHANGED = yaml.safe_load((chart.ROOT / "tests" / "helm" / "changed.yaml").read_text())
# Fixed at installation, as docs/install.md says. `feedback.enabled` and `by` are switches: tests/helm/test_objects.py.
FIXED = {
    "nameOverride",
    "fullnameOverride",
    "tagger.persistence",
    "views.persistence",
    "views.enabled",
    "feedback.enabled",
    "tagger.autoscaling.by",
    "podDisruptionBudget.enabled",
    # Beside kafkaPassword it is refused.
    "secrets.kafkaSecrets",
}
DISK = {"settings": {"memory": {"kind": "embedded"}}, "tagger": {"persistence": {"enabled": True}}}
ALL = {"triton": {"enabled": True}, "views": {"enabled": True}, **DISK}


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field that holds no fields of its own, by its path."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if here in FIXED:
            continue
        if isinstance(value, dict) and value and name not in {"requests", "limits", "behavior", "labels"}:
            yield from leaves(value, here)
        else:
            yield here, value


def test_every_value_is_changed() -> None:
    changed = dict(leaves(CHANGED))
    for path, value in leaves(chart.VALUES):
        given = changed.get(path, [one for name, one in changed.items() if name.startswith(f"{path}.")])
        assert given not in (value, []), path


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """As helm merges values."""
    both = {**one}
    for name, value in other.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


@pytest.fixture(scope="module")
def before() -> list[Object]:
    return chart.render(ALL)


@pytest.fixture(scope="module")
def after() -> list[Object]:
    return chart.render(merged(CHANGED, ALL))


def lasting(objects: list[Object]) -> dict[tuple[str, str], Object]:
    kinds = {"StatefulSet", "Deployment", "Service", "PodDisruptionBudget", "ConfigMap"}
    return {(each["kind"], each["metadata"]["name"]): each for each in objects if each["kind"] in kinds}


def test_names_stay(before: list[Object], after: list[Object]) -> None:
    assert lasting(before).keys() <= lasting(after).keys()


def test_selectors_stay(before: list[Object], after: list[Object]) -> None:
    for name, each in lasting(before).items():
        if each["kind"] != "ConfigMap":
            assert each["spec"]["selector"] == lasting(after)[name]["spec"]["selector"]


def test_claim_templates_and_what_else_is_immutable_stay(before: list[Object], after: list[Object]) -> None:
    sets = [name for name in lasting(before) if name[0] == "StatefulSet"]
    assert len(sets) == 3
    for name in sets:
        old, new = lasting(before)[name]["spec"], lasting(after)[name]["spec"]
        for field in ("serviceName", "podManagementPolicy", "selector", "volumeClaimTemplates"):
            assert old.get(field) == new.get(field), field
    for name in ("tagger", "views"):
        assert lasting(before)["StatefulSet", f"release-tagbus-{name}"]["spec"]["volumeClaimTemplates"]


def test_another_version_of_the_chart_changes_no_claim() -> None:
    """Its label on a claim template would make every upgrade of the chart fail."""
    labels = chart.one(chart.render(DISK), "StatefulSet", "tagger")["spec"]["volumeClaimTemplates"][0]["metadata"][
        "labels"
    ]
    assert not [name for name in labels if "version" in name or "chart" in name]


def test_what_changed_is_taken_too(after: list[Object]) -> None:
    for each in after:
        chart.validate(each)
    image = chart.one(after, "StatefulSet", "tagger")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.startswith("other/tagbus@sha256:1111")
