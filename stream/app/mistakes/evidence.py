"""Why a candidate was found or left out, in an editor's words."""

from collections.abc import Iterator, Mapping

from tagbus.stream.app.explain.explanation import Candidate

# Characters of the title of a neighbour.
TITLE = 80


def reasons(candidate: Candidate, titles: Mapping[str, str]) -> Iterator[str]:
    """The evidence for a candidate. `titles`: titles of the neighbouring contents in memory, by id."""
    if "people" in candidate.found_by:
        yield "people gave it to this very content"
    for component, listed in candidate.components.items():
        if listed.matched is not None:
            yield f"the text has “{listed.matched}”"
        else:
            yield f"{component.replace('_', ' ')} {listed.score:.2f}, place {listed.place}"
    if candidate.similarity is not None:
        yield f"like the tag's own words, {candidate.similarity:.2f}"
    if candidate.votes:
        nearest = candidate.neighbours[0]
        title = titles.get(nearest.id) or nearest.id
        many = "1 similar content has it" if candidate.votes == 1 else f"{candidate.votes} similar contents have it"
        shown = title if len(title) <= TITLE else title[:TITLE] + "…"
        yield f"{many}; the nearest, {nearest.similarity:.2f}: “{shown}”"


def why_not(candidate: Candidate) -> str:
    """Where a right tag was lost; empty for one that was found."""
    if candidate.cut is None:
        return ""
    if candidate.place is not None:
        return f"it came to place {candidate.place}"
    return candidate.cut.reason
