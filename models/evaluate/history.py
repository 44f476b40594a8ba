"""Figures over time: each run of the whole recipe on a data set, under its commit, beside earlier runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from tagbus.stream.errors import UserError, shorten

# The figures that a table shows.
FIGURES: Final = ("p_at_1", "p_at_5", "ndcg_at_5", "r_at_10", "psp_at_5", "ece")


class Run(BaseModel):
    """One run. `changed`: the checkout had uncommitted changes. `rows`: figures by row, with 95% `intervals`."""

    model_config = ConfigDict(frozen=True)

    commit: str
    changed: bool
    date: str
    data: str
    tags: int
    exemplars: int
    contents: int
    rows: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]


class History(BaseModel):
    """All runs, oldest first."""

    model_config = ConfigDict(frozen=True)

    method: str = ""
    runs: tuple[Run, ...] = ()


def read(path: Path) -> History:
    """Read the history in a file; empty without one. Raises UserError for any other file."""
    if not path.exists():
        return History()
    try:
        return History.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no history of `make quality`: {shorten(str(error))}") from None


def added(history: History, run: Run) -> History:
    """Return the history with a run added at the end, replacing those of the same commit on the same data."""
    kept = [one for one in history.runs if (one.commit, one.changed, one.data) != (run.commit, run.changed, run.data)]
    return history.model_copy(update={"runs": (*kept, run)})


def before(history: History, run: Run, row: str) -> Run | None:
    """Return the last earlier run with the row on the same data of the same size."""
    earlier = takewhile(lambda one: one != run, history.runs)
    like = [one for one in earlier if _same(one, run) and row in one.rows]
    return like[-1] if like else None


def _same(one: Run, other: Run) -> bool:
    return (one.data, one.tags, one.exemplars, one.contents) == (
        other.data,
        other.tags,
        other.exemplars,
        other.contents,
    )


def worse(history: History, run: Run) -> Iterator[str]:
    """Return a line for each figure below its earlier interval."""
    for row, figures in run.rows.items():
        if (earlier := before(history, run, row)) is None:
            continue
        for name in FIGURES:
            low, high = earlier.intervals[row][name]
            if figures[name] > high if name == "ece" else figures[name] < low:
                yield (
                    f"{run.data}, {row}: {name} {figures[name]:g}, outside of {low:g} to {high:g} "
                    f"at commit {earlier.commit[:8]}"
                )


def lines(history: History, runs: Sequence[Run]) -> Iterator[list[str]]:
    """Return the rows of these runs as cells: data, row, and each figure with its change since the previous run."""
    for run in runs:
        for row, figures in run.rows.items():
            earlier = before(history, run, row)
            then = None if earlier is None else earlier.rows[row]
            yield [run.data, row, *(_cell(name, figures, then) for name in FIGURES)]


def _cell(name: str, figures: Mapping[str, float], earlier: Mapping[str, float] | None) -> str:
    shown = f"{figures[name]:.4f}" if name == "ece" else f"{figures[name]:.2f}"
    change = 0.0 if earlier is None else figures[name] - earlier[name]
    return (
        shown if round(change, 4) == 0 else f"{shown} ({change:+.4f})" if name == "ece" else f"{shown} ({change:+.2f})"
    )


def write(path: Path, history: History) -> None:
    """Write the history as indented JSON, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(history.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
