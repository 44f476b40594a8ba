"""Generates docs/reference.md (settings, metrics, commands, exit codes) and docs/capacity.md (plans) from the code.

    make reference

A test fails where the pages differ from the output.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer.core
from pydantic.fields import FieldInfo

from tagbus.stream import errors
from tagbus.stream.app.capacity.plan import Load, rows
from tagbus.stream.app.components import REGISTRY
from tagbus.stream.cli.commands import service_commands
from tagbus.stream.cli.operate import plan
from tagbus.stream.config import PREFIX, Settings
from tagbus.stream.telemetry import metrics

PAGE = Path(__file__).parent / "reference.md"
HEAD = """# Reference

Generated from the code by `make reference`; a test fails where it differs. The pages by role explain how things work:
[operator](operator.md), [producer](producer.md), [recommender](recommender.md), [editor](editor.md).
"""
# Differs from machine to machine.
HOST_NAME = f"{PREFIX}KAFKA__INSTANCE"
SUFFIX = {"counter": "_total", "info": "_info"}


def cell(text: str) -> str:
    """Escape a text for a table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def default_of(variable: str, field: FieldInfo) -> str:
    """Return the default of a setting, as shown."""
    value = field.get_default(call_default_factory=True)
    if variable == HOST_NAME:
        return "host name"
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings() -> Iterator[str]:
    """Yield the sections with their fields, components last."""
    yield "## Settings"
    for section, field in Settings.model_fields.items():
        model = type(field.default)
        if hasattr(model, "model_fields"):
            yield from _section(section, model.__doc__ or "", model.model_fields)
    for one in REGISTRY:
        yield from _section(f"components__{one.name}", one.settings.__doc__ or "", one.settings.model_fields)


def _section(name: str, text: str, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    yield f"\n### {name.replace('__', '.')}\n\n{inspect.cleandoc(text).splitlines()[0]}\n"
    yield "| variable | default | |\n| --- | --- | --- |"
    for key, field in fields.items():
        variable = f"{PREFIX}{name}__{field.alias or key}".upper()
        yield f"| `{variable}` | {default_of(variable, field)} | {cell(field.description or '')} |"


def listed() -> Iterator[str]:
    """Yield every metric: name, type, labels, description."""
    yield "\n## Metrics\n\n| metric | type | labels | |\n| --- | --- | --- | --- |"
    for one in vars(metrics).values():
        if hasattr(one, "collect") and not isinstance(one, type):
            (family,) = one.describe() if hasattr(one, "describe") else one.collect()
            label = getattr(one, "_label", "")
            labels = getattr(one, "_labelnames", (label,) if label else ())
            name = family.name + SUFFIX.get(family.type, "")
            shown = ", ".join(f"`{label}`" for label in labels)
            yield f"| `{name}` | {family.type} | {shown} | {cell(family.documentation)} |"


def commands() -> Iterator[str]:
    """Yield every command with its arguments and options."""
    yield "\n## Commands"
    found = service_commands()
    for name in sorted(found):
        yield from _command(found[name], ["tagbus", name])


def _command(command: typer.core.TyperCommand, path: list[str]) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for name in sorted(inner):
            yield from _command(inner[name], [*path, name])
        return
    yield f"\n### {' '.join(path)}\n\n{_plain(command.help or '')}"
    rows = [row for one in command.params if one.name != "help" for row in _parameter(one)]
    if rows:
        yield "\n| | default | |\n| --- | --- | --- |"
        yield from rows


def _plain(text: str) -> str:
    return inspect.cleandoc(text).replace("\f", "").strip()


def _parameter(one: typer.core.TyperOption) -> Iterator[str]:
    name = one.opts[0] if one.param_type_name == "option" else (one.name or "").upper()
    default = "" if one.default is None or callable(one.default) else f"`{one.default}`"
    wanted = "needed" if one.required else default
    yield f"| `{name}` | {cell(wanted)} | {cell(getattr(one, 'help', '') or '')} |"


def exit_codes() -> Iterator[str]:
    """Yield the table of the error tree."""
    yield "\n## Exit codes\n"
    lines = (errors.__doc__ or "").splitlines()
    yield from (line for line in lines if line.startswith("|"))


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *settings(), *listed(), *commands(), *exit_codes()]) + "\n"


CAPACITY = Path(__file__).parent / "capacity.md"
SIMULATED = Path(__file__).parents[1] / "bench" / "results" / "scale.json"
CAPACITY_HEAD = """# Capacity

Generated from the code and `bench/results/scale.json` by `make reference`; a test fails where it differs.

`tagbus plan` computes the resources for a number of contents a day. It is arithmetic over figures that each name their
source: a measurement in `bench/results`, taken on two shared cores, or an assumption. Read the tables as ratios, and
measure what matters to you on your own machines. For the memory of a worker, see the
[operators' page](operator.md#memory).

```
tagbus plan --contents 1e6 --llm-share 0.1
tagbus plan --contents 1e9 --tags 1000000 --exemplars 50000000 --llm-share 0.01 --cores 16
```
"""
WORKED = {
    "A million contents a day": Load(1e6, llm_share=0.1),
    "A billion contents a day": Load(1e9, tags=1_000_000, exemplars=50_000_000, llm_share=0.01, cores=16),
}
DAY_TEXT = """
## A day, simulated

`bench/scale.py` simulates the queue and an autoscaler on lag, second by second: a daily wave with the plan's peak at
16:00, a dead broker at 14:00 (45 seconds without a commit), and a burst of ten times the load for ten minutes at 17:00.
No broker runs. The plan's time assumes that the rate at the end of the burst continues, so it is an upper bound while
the wave falls.

![contents, lag and workers over the day](../bench/results/scale.png)
"""

LATE_TEXT = """
The objective is 99% of the contents within 10 seconds. An autoscaler on lag adds a worker when contents wait already,
and the worker takes time to start, so with many workers it misses the objective on a day without faults. With the
workers of the plan as its least it meets it, and still adds some for a burst:
"""


def _table(*lines: tuple[str, ...]) -> Iterator[str]:
    head, *rest = lines
    yield f"| {' | '.join(head)} |\n|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(line)} |" for line in rest)


def capacity() -> str:
    """Return the page of plans."""
    found = [CAPACITY_HEAD]
    for name, load in WORKED.items():
        found += [
            f"\n## {name}\n",
            *_table(("what", "how much", "rests on"), *rows(load)),
            "\nSensitivity to each input:\n",
        ]
        found += _table(("what changes", "workers", "GB of the vector store", "USD a day"), *plan.varied(load))
    found += [
        DAY_TEXT,
        *_table(("", "dead broker", "burst", "burst with the plan's workers", "the plan says"), *simulated()),
        LATE_TEXT,
        *_table(("least workers", "a day's contents", "late", "p99 of the lag", "most workers"), *late()),
    ]
    found += ["\n## Figures\n", *_table(("figure", "value", "unit", "source"), *plan.figures())]
    return "\n".join(found) + "\n"


def simulated() -> Iterator[tuple[str, ...]]:
    """Yield the seconds to catch up for each load."""
    for row in json.loads(SIMULATED.read_text())["rows"]:
        fixed = row["burst_with_the_plans_workers"]
        yield (
            row["name"],
            f"{row['dead_broker']['seconds']} s",
            f"{row['burst']['seconds']:,} s with up to {row['workers_most']} workers",
            f"{fixed['seconds']:,} s with {row['plan']['workers']}",
            f"{fixed['plan_seconds']:,} s",
        )


def late() -> Iterator[tuple[str, ...]]:
    """Yield the contents that wait too long without faults, for each load and each least number of workers."""
    for row in json.loads(SIMULATED.read_text())["rows"]:
        for least, of, words in (("mean", "workers_mean", "for the mean"), ("plan", "workers", "for the peak")):
            calm = row["without_faults"][f"least_of_the_{least}"]
            workers = f"{row['plan'][of]}, {words}"
            yield workers, row["name"], f"{calm['late']:.1%}", f"{calm['lag_seconds_p99']} s", str(calm["workers_most"])


if __name__ == "__main__":
    PAGE.write_text(page())
    CAPACITY.write_text(capacity())
