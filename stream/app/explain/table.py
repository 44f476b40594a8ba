"""An explanation as tables for people; cells hold no terminal control characters."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from tagbus.stream.app.console import printable
from tagbus.stream.app.explain.explanation import Around, Candidate, Explanation

# Rows of a table, and characters of a title.
MOST = 30
WIDTH = 100


def tables(found: Explanation, most: int = MOST) -> Iterator[RenderableType]:
    """The tables and lines to print for a content, in order."""
    yield from _head(found)
    yield _candidates(found, most)
    if (left := len(found.candidates) - most) > 0:
        yield f"and {left} more candidates; --json shows all"
    yield _neighbours(found)
    if found.knowledge:
        yield _knowledge(found)
    hidden = found.hidden
    if hidden.tags or hidden.exemplars:
        yield f"hidden by scopes and as near: {_many(hidden.tags, 'tag')}, {_many(hidden.exemplars, 'exemplar')}"


def _head(found: Explanation) -> Iterator[str]:
    versions = {"release": found.versions.release, **found.versions.components}
    yield printable(f"{found.id}: {found.title[:WIDTH]}")
    yield printable(", ".join(f"{name.replace('_', '-')} {version}" for name, version in versions.items()))
    yield printable(f"confidence by {found.versions.calibration}, scored by {found.scored_by}")
    yield printable(f"scopes: {', '.join(found.scopes) or 'none'}; path: {' > '.join(found.path)}")
    for one in found.degraded:
        yield printable(f"without {one.stage}: {one.reason}")


def _candidates(found: Explanation, most: int) -> Table:
    table = Table(
        "#", "tag", "confidence", "score", "found by", "kept, or cut at", title="candidates", title_justify="left"
    )
    for one in found.candidates[:most]:
        table.add_row(
            "" if one.place is None else str(one.place),
            printable(f"{one.name or '?'} ({one.id})"),
            "" if one.confidence is None else f"{one.confidence:.4g}",
            "" if one.score is None else f"{one.score:.4g}",
            printable("; ".join(_ways(one))),
            "kept" if one.cut is None else printable(f"{one.cut.stage}: {one.cut.reason}"),
        )
    return table


def _ways(one: Candidate) -> Iterator[str]:
    if "people" in one.found_by:
        yield "people accepted it"
    if one.similarity is not None:
        yield f"C2T {one.similarity:.3f}"
    if one.votes:
        nearest = one.neighbours[0]
        yield f"C2C2T {_many(one.votes, 'vote')} ({nearest.id} {nearest.similarity:.3f})"
    for component, listed in one.components.items():
        words = "" if listed.matched is None else f" '{listed.matched}'"
        yield f"{component.replace('_', '-')} {listed.score:.3g}{words}"


def _neighbours(found: Explanation) -> Table:
    table = Table("similarity", "neighbour", "tags", title="neighbours", title_justify="left")
    for one in found.neighbours[:10]:
        shown = f"{one.similarity:.3f}" + ("" if one.counts else " (below c2c_threshold)")
        table.add_row(shown, printable(f"{one.id} by {one.source}: {one.title[:WIDTH]}"), printable(_names(one)))
    return table


def _names(one: Around) -> str:
    return ", ".join(f"{tag} (not in force)" if name is None else name for tag, name in one.tags.items())


def _knowledge(found: Explanation) -> Table:
    table = Table("similarity", "segment", "text", title="knowledge", title_justify="left")
    for one in found.knowledge:
        table.add_row(
            f"{one.similarity:.3f}", printable(f"{one.id} ({one.kind}): {one.title}"), printable(one.text[:WIDTH])
        )
    return table


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
