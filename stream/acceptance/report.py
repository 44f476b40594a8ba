"""The report of an acceptance run: JSON and one HTML page. It starts with what this project never ran."""

import html
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

Verdict = Literal["passed", "failed", "measured", "not run"]

NEVER: Final = (
    "A managed Kafka: only Apache Kafka itself, its brokers on one machine; no Redpanda, no Kafka service of a cloud.",
    "Networks that lose, delay or split: every part was on one machine.",
    "A Qdrant server or cluster: its engine and its client's in-memory mode; no shards, no replicas.",
    "Triton's own onnxruntime backend on a GPU in production: its server runs, with a stand-in for that backend.",
    "vLLM, SGLang and hosted language models: llama.cpp, sparrow-decider, and servers that answer by a script.",
    "Kubernetes, KEDA and Helm hooks in a cluster: the chart is rendered and validated, and not installed.",
    "Hours and weeks of running: minutes at a time.",
)


class Finding(BaseModel):
    """The result of one check."""

    model_config = ConfigDict(frozen=True)

    name: str
    verdict: Verdict
    words: str
    figures: dict[str, JsonValue] = {}
    seconds: float = 0.0


class Report(BaseModel):
    """The report of a run. `installation`: the installation under test, without secrets."""

    model_config = ConfigDict(frozen=True)

    never_ran: tuple[str, ...] = NEVER
    passed: bool
    started: str
    minutes: float
    installation: dict[str, str]
    findings: tuple[Finding, ...]


PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tagbus acceptance</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ccc; }}
</style></head><body>
<h1>tagbus acceptance: {verdict}</h1>
<p>{started}, {minutes} minutes.</p>
<h2>What this project itself never ran</h2>
<ul>{never}</ul>
<h2>What was found here</h2>
<table><thead><tr><th scope="col">check</th><th scope="col">verdict</th><th scope="col">finding</th>
<th scope="col">figures</th></tr></thead><tbody>{rows}</tbody></table>
<h2>The installation</h2>
<table><tbody>{installation}</tbody></table>
</body></html>
"""


def page(report: Report) -> str:
    """The report as HTML. All text is escaped: names and errors come from elsewhere."""
    return PAGE.format(
        verdict="passed" if report.passed else "failed",
        started=html.escape(report.started),
        minutes=f"{report.minutes:g}",
        never="".join(f"<li>{html.escape(one)}</li>" for one in report.never_ran),
        rows="".join(_row(one) for one in report.findings),
        installation="".join(_cells("th", name, value) for name, value in report.installation.items()),
    )


def _row(one: Finding) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in one.figures.items())
    return _cells("td", one.name, one.verdict, one.words, figures)


def _cells(first: str, *texts: str) -> str:
    head, *rest = (html.escape(text) for text in texts)
    return f"<tr><{first}>{head}</{first}>{''.join(f'<td>{text}</td>' for text in rest)}</tr>"
