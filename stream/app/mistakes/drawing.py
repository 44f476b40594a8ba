"""Curves as coordinates for the page's SVG. Lengths are in units of its view box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tagbus.stream.app.mistakes.curves import Bin, Curve

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 16, 64
# Four steps to a multiple of twenty: 5, 10, 15, 20 or 25 each.
TICKS: Final = 4
ROUND: Final = 20.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its interval and its label."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: `path` joins its marks."""

    name: str
    marks: Sequence[Mark]

    @property
    def path(self) -> str:
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart: its lines, its ticks (coordinate and label), and the edges of its plot area."""

    lines: Sequence[Line]
    across: Sequence[tuple[float, str]]
    up: Sequence[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM
    right: int = WIDTH - RIGHT


def draw(curves: Sequence[Curve], bins: Sequence[Bin]) -> Drawing:
    """Draw curves over the same bins, in this order, from 0 to a round percentage above all of them."""
    most = max((point.high for curve in curves for point in curve.points), default=0.0)
    top = min(100.0, max(ROUND, ROUND * -(-most // ROUND)))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(bins))
    place = {where: LEFT + step * (number + 0.5) for number, where in enumerate(bins)}

    def height(percent: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(top, max(0.0, percent)) / top

    def line(curve: Curve) -> Line:
        return Line(
            curve.name,
            [
                Mark(
                    place[point.bin],
                    height(point.mean),
                    height(point.low),
                    height(point.high),
                    f"{curve.name} {point.mean:.1f} ({point.low:.1f} to {point.high:.1f}), "
                    f"{point.count:,} {curve.over}, {point.bin}",
                )
                for point in curve.points
            ],
        )

    ticks = [(height(top * tick / TICKS), f"{top * tick / TICKS:g}") for tick in range(TICKS + 1)]
    return Drawing([line(curve) for curve in curves], [(place[where], where) for where in bins], ticks)
