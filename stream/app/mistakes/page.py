"""The page: one self-contained HTML file that makes no requests.

The template escapes every text of a content or a tag and isolates its writing direction from the text around it. The
page's Content-Security-Policy forbids scripts and requests.
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
# Characters shown of a content.
TEXT: Final = 600
# Wrong and right candidates, and similar contents, shown for a content.
CANDIDATES: Final = 10
NEIGHBOURS: Final = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A tag of a content: its rank among the found ones (None: it was not found), and its evidence."""

    name: str
    id: str
    right: bool
    place: int | None
    confidence: float | None
    reasons: Sequence[str]
    lost: str


@dataclass(frozen=True, slots=True)
class Near:
    """A similar content in memory, and its tags."""

    title: str
    similarity: float
    tags: Sequence[str]


@dataclass(frozen=True, slots=True)
class Card:
    """A content: found tags, then right ones that were not found; its neighbours."""

    tagged: Tagged
    rows: Sequence[Row]
    near: Sequence[Near]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its title, and the curves as a table."""

    title: str
    under: str
    drawing: Drawing
    curves: Sequence[Curve]


# Renders the page.
Render = Callable[[Evaluated, Mapping[str, Explanation], About], str]


def render(evaluated: Evaluated, explained: Mapping[str, Explanation], about: About) -> str:
    """The page as HTML. `explained`: the explanations of the contents of `looked_at`, by id."""
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
    """A content with its tags and what is known about each."""
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
    """A text without control characters, which HTML cannot hold or which only control a terminal."""
    return "".join(char if char in "\n\t" or (char >= " " and not "\x7f" <= char <= "\x9f") else "�" for char in text)
