"""Charts of the table: reliability diagrams of its rows, and learning curves of the training runs."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tagbus.models.evaluate.raw import Raw
from tagbus.models.journal import JOURNAL, lines
from tagbus.stream import quality

# Set before the import, which otherwise creates folders and a list of fonts in the home directory.
_CACHE: Final = tempfile.TemporaryDirectory(prefix="tagbus-matplotlib-")
os.environ.setdefault("MPLCONFIGDIR", _CACHE.name)

from matplotlib.figure import Figure  # noqa: E402

BINS: Final = 15
# Fields of a training log that are plotted.
CURVES: Final = ("loss", "p_at_1", "p_at_5", "ndcg_at_5")


def draw(table: Path, models: Path, rows: Mapping[str, Raw]) -> None:
    """Write TABLE-reliability.png from raw rows, and TABLE-learning.png from the logs in `models`."""
    if rows:
        reliability({name: _pairs(raw) for name, raw in rows.items()}, table.with_name(f"{table.stem}-reliability.png"))
    logs = {str(log.parent.relative_to(models)): lines(log) for log in sorted(models.glob(f"**/{JOURNAL}"))}
    if logs:
        learning(logs, table.with_name(f"{table.stem}-learning.png"))


def _pairs(raw: Raw) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    found = raw.ranked.indices >= 0
    return raw.ranked.scores[found], quality.hits(raw.ranked, raw.truth)[found]


def reliability(pairs: Mapping[str, tuple[NDArray[np.float64], NDArray[np.bool_]]], to: Path) -> None:
    """Reliability diagram (DeGroot and Fienberg 1983) with a line per row, as PNG."""
    figure = Figure(figsize=(6, 6), dpi=120)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8)
    for name, (confidence, right) in pairs.items():
        place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        counts = np.bincount(place, minlength=BINS)
        # Bins with fewer than ten tags are too noisy to plot.
        some = counts >= 10
        mean = np.bincount(place, weights=confidence, minlength=BINS)[some] / counts[some]
        share = np.bincount(place, weights=right, minlength=BINS)[some] / counts[some]
        axes.plot(mean, share, marker="o", markersize=3, linewidth=1, label=name)
    axes.set(xlabel="confidence", ylabel="share of right tags", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=7)
    figure.savefig(to, bbox_inches="tight")


def learning(logs: Mapping[str, Sequence[Mapping[str, object]]], to: Path) -> None:
    """The logged figures over training time in seconds, as PNG."""
    figure = Figure(figsize=(4 * len(CURVES), 4), dpi=120)
    axes = figure.subplots(1, len(CURVES))
    for axis, curve in zip(axes, CURVES, strict=True):
        for name, log in logs.items():
            points = [(_number(line, "seconds"), _number(line, curve)) for line in log if curve in line]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=name)
        axis.set(xlabel="seconds of training", title=curve)
        if axis.lines:
            axis.legend(fontsize=7)
    figure.savefig(to, bbox_inches="tight")


def _number(line: Mapping[str, object], name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")
