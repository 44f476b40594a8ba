"""Compare two memories on the same contents: the effect of more exemplars or other descriptions, by tag frequency.

Frequencies are counted over people's exemplars in the first memory, so both are measured by the same bands. The
interval of a difference is by bootstrap over contents, each drawn for both (Efron and Tibshirani 1993, chapter 13).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import JsonValue

from tagbus.stream.app.evaluation import K
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.intervals import HEAD, TORSO, of_mean
from tagbus.stream.logistic import Floats

# A tag without any exemplar, then the bands of `intervals`.
BANDS: Final = (("all", 0, None), ("head", HEAD, None), ("torso", TORSO, HEAD), ("tail", 0, TORSO), ("new", 0, 1))

Json = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in percent: before, after, the number of contents, and the 95% interval of the difference."""

    name: str
    contents: int
    before: float
    after: float
    low: float
    high: float

    def as_json(self) -> Json:
        """The row as an object keyed by column name."""
        return {
            "name": self.name,
            "contents": self.contents,
            "before": round(self.before, 2),
            "after": round(self.after, 2),
            "difference": round(self.after - self.before, 2),
            "interval": [round(self.low, 2), round(self.high, 2)],
        }


def counts_of(exemplars: Iterable[Exemplar]) -> Counter[str]:
    """The number of people's exemplars that carry each tag."""
    return Counter(tag for one in exemplars if one.source == "people" for tag in one.accepted)


def compared(
    before: Sequence[TaggedContent],
    after: Sequence[TaggedContent],
    truth: Mapping[str, frozenset[str]],
    counts: Mapping[str, int],
) -> list[Row]:
    """P@1, then R@10 over all right tags and per band. `before` and `after` cover the same contents."""
    rows = [_row("P@1", *(np.array([_first(one, truth) for one in results]) for results in (before, after)))]
    for name, least, most in BANDS:
        wanted = [
            frozenset(tag for tag in truth[one.id] if least <= counts.get(tag, 0) < (most or np.inf)) for one in before
        ]
        some = [place for place, tags in enumerate(wanted) if tags]
        if some:
            values = (
                np.array([_recall(results[place], wanted[place]) for place in some]) for results in (before, after)
            )
            rows.append(_row(f"R@{K} {name}", *values))
    return rows


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as a table for people."""
    yield f"{'figure':<12} {'contents':>8} {'before':>7} {'after':>7} {'differs by':>10}  95% interval"
    for row in rows:
        yield (
            f"{row.name:<12} {row.contents:>8} {row.before:>7.2f} {row.after:>7.2f} {row.after - row.before:>+10.2f}  "
            f"{row.low:+.2f} to {row.high:+.2f}"
        )


def _first(result: TaggedContent, truth: Mapping[str, frozenset[str]]) -> float:
    return 100.0 * bool(result.tags and result.tags[0].id in truth[result.id])


def _recall(result: TaggedContent, wanted: frozenset[str]) -> float:
    return 100.0 * len(wanted & {tag.id for tag in result.tags[:K]}) / len(wanted)


def _row(name: str, before: Floats, after: Floats) -> Row:
    low, high = of_mean(after - before)
    return Row(name, len(before), float(before.mean()), float(after.mean()), float(low), float(high))
