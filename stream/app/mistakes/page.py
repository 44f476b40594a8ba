"""The page: one HTML file that asks nobody for anything.

Every text of a content or a tag is escaped by the template, and stands apart from the direction in which the text
around it is written. The page forbids itself scripts and requests, should a browser find any.
"""

import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import Environment, StrictUndefined, Template

from tagbus.stream.app.explain.explanation import Candidate, Explanation
from tagbus.stream.app.mistakes import find
from tagbus.stream.app.mistakes.curves import LENGTHS, Curve, bins_of, curves, frequency_bins
from tagbus.stream.app.mistakes.drawing import Drawing, draw
from tagbus.stream.app.mistakes.evaluated import About, Evaluated, Tagged
from tagbus.stream.app.mistakes.evidence import reasons, why_not
from tagbus.stream.quality import LABELS

_TEMPLATE: Final = importlib.resources.files("tagbus.stream") / "app" / "mistakes" / "page.html.j2"
# Characters of a content that are shown.
TEXT: Final = 600
# Wrong and right candidates of a content that are shown, and similar contents.
CANDIDATES: Final = 10
NEIGHBOURS: Final = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A tag of a content: its place among the found ones (None: it was not found), and what speaks for it."""

    name: str
    id: str
    right: bool
    place: int | None
    confidence: float | None
    reasons: Sequence[str]
    lost: str


@dataclass(frozen=True, slots=True)
class Near:
    """A content in memory that is like the content, and its tags."""

    title: str
    similarity: float
    tags: Sequence[str]


@dataclass(frozen=True, slots=True)
class Card:
    """A content: found tags, then right ones that were not found; what is near it."""

    tagged: Tagged
    rows: Sequence[Row]
    near: Sequence[Near]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its title, and the curves for those who read numbers."""

    title: str
    under: str
    drawing: Drawing
    curves: Sequence[Curve]


# Draws the page.
Render = Callable[[Evaluated, Mapping[str, Explanation], About], str]


def render(evaluated: Evaluated, explained: Mapping[str, Explanation], about: About) -> str:
    """The page as HTML. `explained`: of the contents of `looked_at`, by id."""
    unseen, never = find.never_found(evaluated)
    gaps = find.gaps(evaluated)
    worst = find.worst(evaluated)
    return _template().render(
        about=about,
        words=LABELS,
        contents=len(evaluated.contents),
        cards=[card(evaluated, one, explained[one.content.id]) for one in worst],
        confusions=find.confusions(evaluated),
        never=never,
        unseen=unseen,
        gaps=gaps,
        gap_rows=[(gap, _row_of(evaluated, gap, explained[gap.tagged.content.id])) for gap in gaps.rows],
        charts=charts(evaluated),
        name=evaluated.name,
        counts=evaluated.counts,
        shortened=shortened,
    )


def shortened(tagged: Tagged, most: int = TEXT) -> str:
    """Title and text of a content, cut."""
    content = tagged.content
    whole = ": ".join(part for part in (content.title.strip(), content.text.strip()) if part)
    return whole if len(whole) <= most else whole[:most] + "…"


def card(evaluated: Evaluated, one: Tagged, explanation: Explanation) -> Card:
    """A content with its tags and what is known of each."""
    known = {candidate.id: candidate for candidate in explanation.candidates}
    titles = {near.id: near.title for near in explanation.neighbours}
    rows = [
        _row(evaluated, one, tag.id, place, known.get(tag.id), titles)
        for place, tag in enumerate(one.found[:CANDIDATES], start=1)
    ]
    rows += [_row(evaluated, one, tag, None, known.get(tag), titles) for tag in one.missing]
    near = [
        Near(other.title, other.similarity, [name or tag for tag, name in other.tags.items()])
        for other in explanation.neighbours[:NEIGHBOURS]
    ]
    return Card(one, rows, near)


def _row(
    evaluated: Evaluated,
    one: Tagged,
    tag: str,
    place: int | None,
    candidate: Candidate | None,
    titles: Mapping[str, str],
) -> Row:
    return Row(
        evaluated.name(tag),
        tag,
        tag in one.right,
        place,
        None if place is None else one.found[place - 1].confidence,
        [] if candidate is None else list(reasons(candidate, titles)),
        "" if place is not None else "nothing found it" if candidate is None else why_not(candidate),
    )


def _row_of(evaluated: Evaluated, gap: find.Gap, explanation: Explanation) -> Row:
    rows = card(evaluated, gap.tagged, explanation).rows
    return next(row for row in rows if row.id == gap.tag.id)


def charts(evaluated: Evaluated) -> list[Chart]:
    """Curves by frequency, by language, by length."""
    frequency, language, length = curves(evaluated)
    spoken = [point.bin for point in language[0].points]
    return [
        _chart("By how many contents in memory have the tag", "contents in memory", frequency, frequency_bins()),
        _chart("By language", "language, or script where a content names none", language, spoken),
        _chart("By length", "words of title and text", length, bins_of(LENGTHS)),
    ]


def _chart(title: str, under: str, found: Sequence[Curve], bins: Sequence[str]) -> Chart:
    there = {point.bin for curve in found for point in curve.points}
    return Chart(title, under, draw(found, [one for one in bins if one in there]), found)


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """A text without characters that HTML cannot hold or that only steer a terminal."""
    return "".join(char if char in "\n\t" or (char >= " " and not "\x7f" <= char <= "\x9f") else "�" for char in text)
