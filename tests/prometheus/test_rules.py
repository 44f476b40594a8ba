"""Prometheus rules, dashboards and runbook: they name what there is, and alerts fire when they should."""

import json
import re
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from tagbus.stream import errors, telemetry
from tests.prometheus.promtool import ROOT, RULES, alerts, check, expressions, promtool

CASES = {
    name: yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text()) for name in ("rules", "down", "slow")
}
DASHBOARDS = sorted((ROOT / "helm" / "tagbus" / "dashboards").glob("*.json"))
RUNBOOK = ROOT / "docs" / "runbook"
NAMES = re.compile(r"\btagbus[_:][a-z0-9_:]+")
RECORDED = {
    rule["record"]
    for file in RULES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
}


def series() -> set[str]:
    """The names of all series that the code exports."""
    assert telemetry.READY
    found = set()
    for family in REGISTRY.collect():
        match family.type:
            case "histogram":
                found |= {f"{family.name}{end}" for end in ("_bucket", "_sum", "_count")}
            case "counter" | "info":
                found.add(f"{family.name}_{'total' if family.type == 'counter' else 'info'}")
            case _:
                found.add(family.name)
    return {name for name in found if name.startswith("tagbus_")}


def panels(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    return found


def test_prometheus_reads_the_rules() -> None:
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_when_they_should(name: str, tmp_path: Path) -> None:
    assert check(CASES[name], tmp_path) == ""


def test_each_alert_is_tested_where_it_fires_and_where_it_does_not() -> None:
    tested: dict[str, set[bool]] = defaultdict(set)
    for case in chain.from_iterable(cases["tests"] for cases in CASES.values()):
        for one in case["alert_rule_test"]:
            tested[one["alertname"]].add(bool(one["exp_alerts"]))
    assert dict(tested) == {name: {True, False} for name in alerts()}


def test_rules_ask_for_series_that_there_are() -> None:
    asked = {name for expression in expressions() for name in NAMES.findall(expression)}
    assert asked - series() - RECORDED == set()
    # The client's own, by which restarts are counted.
    assert "process_start_time_seconds" in {family.name for family in REGISTRY.collect()}


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    pages = {path.stem for path in RUNBOOK.glob("*.md")} - {"README", "exit-codes"}
    assert pages == set(alerts())
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\)", (RUNBOOK / "README.md").read_text(), re.MULTILINE)
    assert listed == [(name, name) for name in sorted(pages, key=[one for one, _ in listed].index)]
    for name, rule in alerts().items():
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        assert annotations["runbook_url"] == f"docs/runbook/{name}.md"


def test_links_of_the_runbook_lead_somewhere() -> None:
    for page in RUNBOOK.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_exit_codes_has_them_all() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.TagbusError)]
    found = re.findall(r"^\| (\d+) \|", (RUNBOOK / "exit-codes.md").read_text(), re.MULTILINE)
    assert set(map(int, found)) == {0, *(one.exit_code for one in kinds)}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
class TestDashboard:
    def test_its_panels_ask_for_series_that_there_are(self, file: Path) -> None:
        asked = [target["expr"] for panel in panels(file) for target in panel["targets"]]
        assert asked
        assert {name for one in asked for name in NAMES.findall(one)} - series() - RECORDED == set()

    def test_prometheus_reads_what_they_ask(self, file: Path, tmp_path: Path) -> None:
        asked = [target["expr"] for panel in panels(file) for target in panel["targets"]]
        plain = [one.replace("$__rate_interval", "5m").replace("$namespace", ".*") for one in asked]
        rules = [{"record": f"test:{number}", "expr": one} for number, one in enumerate(plain)]
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        done = promtool("check", "rules", path)
        assert done.returncode == 0, done.stderr

    def test_it_has_the_form_of_a_dashboard(self, file: Path) -> None:
        dashboard = json.loads(file.read_text())
        assert dashboard["uid"] == file.stem
        assert {"title", "schemaVersion", "time", "templating", "panels"} <= dashboard.keys()
        variables = {one["name"] for one in dashboard["templating"]["list"]}
        assert {"datasource", "namespace"} <= variables
        ids = [panel["id"] for panel in panels(file)]
        assert len(set(ids)) == len(ids)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels(file)]
        assert len(set(places)) == len(places)
        for panel in panels(file):
            assert {"title", "type", "datasource", "fieldConfig", "gridPos", "targets"} <= panel.keys()
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
            assert all(
                set(re.findall(r"\$(\w+)", one["expr"])) <= variables | {"__rate_interval"} for one in panel["targets"]
            )
