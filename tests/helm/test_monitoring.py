"""What the chart gives to Prometheus and Grafana: the chart's files, and jobs by which rules find each part."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helm import chart
from tests.helm.test_objects import SWITCHES, rendered

COMPOSE = yaml.safe_load((chart.ROOT / "compose.yaml").read_text())
STREAM = (chart.CHART / "rules" / "stream.yaml").read_text()
# The names of jobs that the rules ask for.
JOBS = set(re.findall(r'job=~"([^"]+)"', STREAM))


def jobs(case: str) -> dict[str, str]:
    """Each part's job: the name of the Service that its ServiceMonitor selects, or what compose.yaml calls it."""
    if case == "compose":
        config = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
        return {job["job_name"]: job["job_name"] for job in config["scrape_configs"]}
    component = "app.kubernetes.io/component"
    monitors = [each for each in rendered(case) if each["kind"] == "ServiceMonitor"]
    services = [each["metadata"] for each in rendered(case) if each["kind"] == "Service"]
    assert not [each for each in monitors if "jobLabel" in each["spec"]]
    return {
        service["labels"][component]: service["name"]
        for monitor in monitors
        for service in services
        if service["labels"][component] == monitor["spec"]["selector"]["matchLabels"][component]
    }


@pytest.mark.parametrize("case", ["everything", "large", "compose"])
def test_the_rules_find_each_part_by_its_job(case: str) -> None:
    assert len(JOBS) == 2
    taggers, parts = sorted(JOBS, key=len)
    assert {"tagger", "indexer", "feedback", "views", "triton"} <= jobs(case).keys()
    assert [part for part, job in jobs(case).items() if re.fullmatch(taggers, job)] == ["tagger"]
    assert {part for part, job in jobs(case).items() if re.fullmatch(parts, job)} == {
        "tagger",
        "indexer",
        "feedback",
        "views",
    }


def test_pages_of_alerts_are_in_the_repository_unless_told_otherwise() -> None:
    rules = [
        rule for group in chart.one(rendered("large"), "PrometheusRule")["spec"]["groups"] for rule in group["rules"]
    ]
    for rule in rules:
        if "alert" in rule:
            assert (chart.ROOT / rule["annotations"]["runbook_url"]).is_file()


def test_rules_and_dashboards_are_the_files_of_the_chart(tmp_path: Path) -> None:
    copy = tmp_path / "tagbus"
    shutil.copytree(chart.CHART, copy)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(copy / folder, ignore_errors=True)
        (copy / folder).mkdir()
    notes = "{summary: 'of {{ $labels.instance }}', runbook_url: docs/runbook/A.md}"
    rule = f"{{alert: A, expr: 'up == 0', annotations: {notes}}}"
    (copy / "rules" / "a.yaml").write_text(f"groups: [{{name: a, rules: [{rule}]}}]")
    (copy / "rules" / "b.yaml").write_text("groups: [{name: b, rules: []}, {name: c, rules: []}]")
    (copy / "dashboards" / "overview.json").write_text('{"title": "{{ none }}"}')

    objects = chart.render(SWITCHES["everything"], chart=copy)

    for each in objects:
        chart.validate(each)
    groups = chart.one(objects, "PrometheusRule")["spec"]["groups"]
    assert [group["name"] for group in groups] == ["a", "b", "c"]
    assert groups[0]["rules"][0]["annotations"] == {
        "summary": "of {{ $labels.instance }}",
        "runbook_url": "https://example.org/tagbus/A.md",
    }
    dashboard = chart.one(objects, "ConfigMap", "dashboard-overview")
    assert dashboard["data"] == {"overview.json": '{"title": "{{ none }}"}'}
    assert dashboard["metadata"]["labels"]["a"] == "b"
