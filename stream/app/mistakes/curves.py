"""Quality by tag frequency, by language and by length: where a tagger is weak."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tagbus.stream.app.mistakes.evaluated import Evaluated, Tagged
from tagbus.stream.contract.events import Content
from tagbus.stream.intervals import of_mean
from tagbus.stream.recall.scripts import OTHER, language_of

# Lower bounds of the bins: contents in memory that carry a tag, and words of a content.
FREQUENCIES: Final = (0, 1, 3, 10, 30, 100, 300, 1000)
LENGTHS: Final = (1, 4, 8, 16, 32, 64, 128)
LANGUAGES: Final = 12

Bin = str


@dataclass(frozen=True, slots=True)
class Point:
    """A mean in percent over `count` values, and the ends of its 95% interval."""

    bin: Bin
    count: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric, the values it is over, and a point for each non-empty bin."""

    name: str
    over: str
    points: Sequence[Point]


def curves(evaluated: Evaluated) -> list[list[Curve]]:
    """Groups of curves: by frequency, by language, by length."""
    known = [one for one in evaluated.contents if one.right]
    languages = _largest([language(one.content) for one in known])

    def spoken(one: Tagged) -> Bin:
        own = language(one.content)
        return own if own in languages else OTHER

    return [
        [
            _curve("R@10", "right tags", _recalled(evaluated, known), frequency_bins()),
            _curve("P@5", "tags given", _given(evaluated, known), frequency_bins()),
        ],
        *(
            [
                _curve("P@1", "contents", ((of(one), _precision(one)) for one in known), bins),
                _curve("R@10", "contents", ((of(one), _recall(one)) for one in known), bins),
            ]
            for of, bins in ((spoken, [*languages, OTHER]), (_length, bins_of(LENGTHS)))
        ),
    ]


def frequency_bins() -> list[Bin]:
    """The bins of tags by their number of contents in memory."""
    return bins_of(FREQUENCIES)


def bins_of(least: Sequence[int]) -> list[Bin]:
    """The names of bins with these lower bounds."""
    ends = [*(number - 1 for number in least[1:]), None]
    return [
        f"{start}+" if end is None else str(start) if end == start else f"{start}-{end}"
        for start, end in zip(least, ends, strict=True)
    ]


def _bin(number: int, least: Sequence[int]) -> Bin:
    place = sum(number >= start for start in least) - 1
    return bins_of(least)[max(0, place)]


def language(content: Content) -> str:
    """The language of a content, or the script of its title and text."""
    return language_of(content.language, f"{content.title} {content.text}")


def _largest(languages: Sequence[str]) -> list[str]:
    counts: dict[str, int] = defaultdict(int)
    for one in languages:
        counts[one] += 1
    return [name for name in sorted(counts, key=lambda name: (-counts[name], name)) if name != OTHER][:LANGUAGES]


def _length(one: Tagged) -> Bin:
    return _bin(len(f"{one.content.title} {one.content.text}".split()), LENGTHS)


def _recalled(evaluated: Evaluated, known: Iterable[Tagged]) -> Iterable[tuple[Bin, float]]:
    for one in known:
        found = {tag.id for tag in one.found}
        yield from ((_bin(evaluated.counts.get(tag, 0), FREQUENCIES), float(tag in found)) for tag in one.right)


def _given(evaluated: Evaluated, known: Iterable[Tagged]) -> Iterable[tuple[Bin, float]]:
    for one in known:
        for tag in one.found[:5]:
            yield _bin(evaluated.counts.get(tag.id, 0), FREQUENCIES), float(tag.id in one.right)


def _precision(one: Tagged) -> float:
    return float(bool(one.found) and one.found[0].id in one.right)


def _recall(one: Tagged) -> float:
    return len(one.right & {tag.id for tag in one.found}) / len(one.right)


def _curve(name: str, over: str, values: Iterable[tuple[Bin, float]], bins: Sequence[Bin]) -> Curve:
    found: Mapping[Bin, list[float]] = defaultdict(list)
    for where, value in values:
        found[where].append(value)
    return Curve(name, over, [_point(where, found[where]) for where in bins if found.get(where)])


def _point(where: Bin, values: Sequence[float]) -> Point:
    percent = 100 * np.array(values, np.float64)
    low, high = of_mean(percent)
    return Point(where, len(percent), float(percent.mean()), float(low), float(high))
