"""`tagbus acceptance`: test the guarantees of tagbus on the installation of these settings."""

import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.acceptance import changes, run
from tagbus.stream.acceptance.exactness import Recall
from tagbus.stream.acceptance.fleet import Fleet
from tagbus.stream.acceptance.load import Load
from tagbus.stream.acceptance.report import Finding, Report, page
from tagbus.stream.acceptance.sandbox import Sandbox
from tagbus.stream.app import console
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.errors import CheckFailed, UserError
from tagbus.stream.kafka.writer import TopicWriter

# Exemplars in memory per minute of the run: a short run must spend its time on the checks.
EXEMPLARS_A_MINUTE = 200


def acceptance(
    minutes: Annotated[float, typer.Option("--minutes", min=0.2, max=1440, help="how long it may take, about")] = 15.0,
    out: Annotated[Path, typer.Option("--out", help="folder for acceptance.json and acceptance.html")] = Path("."),
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="workers to run on this machine")] = 2,
) -> None:
    """Test the guarantees of tagbus on this cluster, in separate topics, group and collections, removed at the end.

    Each content comes out once while workers are killed; an outage of each dependency, by a proxy in front of it;
    latency at 25, 50 and 75% load; recall against exact search; the budget of the judge; a release rollout and
    rollback. Ends with a report that first lists what this project never ran. Code 3 if anything failed.
    """
    settings = load()
    # The default handler would end only this process: workers would keep running, and topics would stay.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if not out.is_dir():
        raise UserError(f"--out {out}: expected an existing folder")
    started = datetime.now(UTC)
    with ExitStack() as stack:
        releases = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tagbus-acceptance-")))
        found = tuple(_found(Sandbox.of(settings, releases, workers), 60 * minutes, workers, stack))
    failed = [one.name for one in found if one.verdict == "failed"]
    report = Report(
        passed=not failed,
        started=started.isoformat(timespec="seconds"),
        minutes=round((time.time() - started.timestamp()) / 60, 1),
        installation=_installation(settings, workers),
        findings=found,
    )
    for name, text in (("acceptance.json", report.model_dump_json(indent=2)), ("acceptance.html", page(report))):
        (out / name).write_text(text + "\n", encoding="utf-8")
        console.say(f"written: {out / name}")
    if failed:
        raise CheckFailed(f"failed: {', '.join(failed)}")


def _found(sandbox: Sandbox, seconds: float, workers: int, stack: ExitStack) -> list[Finding]:
    """Create the environment, fill its memory, start its workers, and run the checks."""
    tags = files.all_of(example("tags.jsonl"), files.tag_of)
    exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)
    exemplars = exemplars[: max(EXEMPLARS_A_MINUTE, int(EXEMPLARS_A_MINUTE * seconds / 60))]
    contents = files.all_of(example("content.jsonl"), files.content_of)
    proxies, variables = run.proxies(sandbox.settings, stack)
    console.say(f"topics and group {sandbox.prefix}*")
    with sandbox.made(), Fleet(sandbox, {**sandbox.variables, **variables}, workers) as fleet:
        names = sandbox.settings.topics
        _publish(sandbox.settings, names.tags, [encode_record(one) for one in tags])
        _publish(sandbox.settings, names.exemplars, [encode_record(one) for one in exemplars])
        console.say(f"starting {workers} workers with {len(tags)} tags and {len(exemplars)} exemplars")
        fleet.start()
        load = Load(sandbox.settings, contents)
        stack.callback(load.close)
        checks: dict[str, run.Check] = {
            "rate": run.capacity,
            "latency": run.latency,
            "kills": run.kills,
            "outages": run.outages,
            "recall": Recall(tags, exemplars, contents),
            "budget": changes.budget,
            "roll-back": changes.roll_back,
        }
        return list(run.findings(run.Run(sandbox, fleet, load, proxies, seconds), checks))


def _publish(settings: Settings, topic: str, records: list[Record]) -> None:
    with TopicWriter(settings.kafka, topic) as writer:
        for record in records:
            writer.send(record)


def _installation(settings: Settings, workers: int) -> dict[str, str]:
    """The installation under test, in words, without secrets."""
    encoder, memory, llm = settings.encoder, settings.memory, settings.llm
    return {
        "brokers": settings.kafka.brokers,
        "delivery": settings.kafka.delivery.replace("_", " "),
        "encoder": encoder.kind + (f" at {encoder.address}" if encoder.kind == "triton" else ""),
        "memory": memory.kind,
        "judge": "none" if llm.url is None else f"profile {llm.profile}, model {llm.model or 'the first'}",
        "workers": str(workers),
    }
