"""`tagbus plan`: the capacity that a number of contents a day needs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.table import Table

from tagbus.stream.app import console
from tagbus.stream.app.capacity.figures import FIGURES
from tagbus.stream.app.capacity.plan import GB, Load, Plan, rows, sensitivity
from tagbus.stream.app.capacity.plan import plan as made

BASE = Load(1)


def plan(
    contents: Annotated[float, typer.Option("--contents", min=1, max=1e12, help="contents a day")],
    peak: Annotated[float, typer.Option("--peak", min=1, max=1000, help="the busiest hour over the mean")] = BASE.peak,
    tags: Annotated[int, typer.Option("--tags", min=1, max=10**10, help="tags of the taxonomy")] = BASE.tags,
    exemplars: Annotated[
        int, typer.Option("--exemplars", min=0, max=10**11, help="contents with known tags in memory")
    ] = BASE.exemplars,
    characters: Annotated[
        float, typer.Option("--characters", min=1, max=500_000, help="of title and text, the mean")
    ] = BASE.characters,
    llm_share: Annotated[
        float, typer.Option("--llm-share", min=0, max=1, help="share of the contents that the judge is asked about")
    ] = BASE.llm_share,
    replication: Annotated[
        int, typer.Option("--replication", min=1, max=10, help="copies in Kafka and in the vector store")
    ] = BASE.replication,
    cores: Annotated[int, typer.Option("--cores", min=1, max=256, help="of a worker")] = BASE.cores,
    gpu: Annotated[bool, typer.Option("--gpu", help="encode on GPUs, by Triton")] = BASE.gpu,
    form: Annotated[Literal["table", "json"], typer.Option("--as", help="for people, or JSON")] = "table",
) -> None:
    """Print the capacity that a number of contents a day needs: partitions, workers, memory, tokens, bandwidth.

    Every figure names its source: a measurement of bench/results, or an assumption. Needs neither Kafka nor a model.
    """
    load = Load(contents, peak, tags, exemplars, characters, llm_share, replication, cores, gpu)
    if form == "json":
        console.print_line(json.dumps(as_json(load)))
        return
    _print(("what", "how much", "rests on"), rows(load))
    _print(("what changes", "workers", "GB of the vector store", "USD a day"), varied(load))
    _print(("figure", "value", "unit", "source"), figures())


def as_json(load: Load) -> dict[str, object]:
    """The plan as JSON: load, plan, sensitivity, figures."""
    return {
        "load": asdict(load),
        "plan": asdict(made(load)),
        "sensitivity": {name: {word: asdict(one) for word, one in some.items()} for name, some in sensitivity(load)},
        "figures": {name: asdict(one) for name, one in FIGURES.items()},
    }


def varied(load: Load) -> Sequence[tuple[str, ...]]:
    """The table of changes when an input is halved or doubled."""
    found = [("as given", *_short(made(load)))]
    for name, some in sensitivity(load):
        found += [(f"{word} {name.replace('_', ' ')}", *_short(one)) for word, one in some.items()]
    return found


def _short(one: Plan) -> tuple[str, str, str]:
    return f"{one.workers:,}", f"{one.memory_bytes / GB:,.1f}", f"{one.cost_a_day:,.2f}"


def figures() -> Sequence[tuple[str, ...]]:
    """The table of figures."""
    return [(name, f"{one.value:,g}", one.unit, one.source) for name, one in FIGURES.items()]


def _print(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    table = Table(*head)
    for line in lines:
        table.add_row(*line)
    console.stdout.print(table)
