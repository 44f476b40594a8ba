"""A few tagged contents in a compact notation."""

from collections.abc import Mapping, Sequence

from tagbus.stream.app.explain.explanation import Around, Candidate, Cut, Explanation, Hidden, Listed
from tagbus.stream.app.mistakes.evaluated import About, Evaluated, Tagged
from tagbus.stream.contract.events import Content, Evidence, Neighbour, ScoredTag, Tag, Versions

VERSIONS = Versions(release="mini-1", taxonomy={}, calibration="none")
ABOUT = About("mini-1, no components", "Memory of three contents.", {"p_at_1": 50.0, "ece": 0.01})


def tagged(
    name: str, right: str, found: Mapping[str, float], title: str = "", language: str | None = None, text: str = ""
) -> Tagged:
    """A content with these right tags (ids by commas) and these found ones with their confidences."""
    tags = [
        ScoredTag(id=tag, name=tag, score=1.0, confidence=confidence, stage="recall", evidence=Evidence())
        for tag, confidence in found.items()
    ]
    content = Content(id=name, title=title if title or text else f"title of {name}", text=text, language=language)
    return Tagged(content, frozenset(right.split(",")), tags)


def evaluated(
    contents: Sequence[Tagged], counts: Mapping[str, int] | None = None, tags: Sequence[Tag] = ()
) -> Evaluated:
    """Over the tags that the contents name, beside those given."""
    ids = {tag for one in contents for tag in (*one.right, *(found.id for found in one.found))}
    known = {tag: Tag(id=tag, name=f"name of {tag}") for tag in sorted(ids)} | {tag.id: tag for tag in tags}
    return Evaluated(contents, known, counts or {})


def explanation(one: Tagged, near: str = "a neighbour's title") -> Explanation:
    """Of a content whose found tags have evidence of each kind, and whose missing ones came too late."""
    found = [
        Candidate(
            id=tag.id,
            name=tag.name,
            found_by=("C2T", "C2C2T", "literal"),
            similarity=0.61,
            votes=2,
            neighbours=(Neighbour(id="n1", source="people", similarity=0.74),),
            components={"literal": Listed(score=1.0, place=1, matched=tag.name)},
            place=place,
            score=1.0,
            confidence=tag.confidence,
            cut=None,
        )
        for place, tag in enumerate(one.found, start=1)
    ]
    lost = [
        Candidate(id=tag, name=tag, found_by=("C2T",), place=14, cut=Cut(stage="select", reason="place 14"))
        for tag in one.missing
    ]
    around = Around(id="n1", source="people", title=near, similarity=0.74, counts=True, tags={"a": "name of a"})
    return Explanation(
        id=one.content.id,
        title=one.content.title,
        scopes=(),
        versions=VERSIONS,
        scored_by="recall",
        path=(),
        degraded=(),
        parameters={},
        candidates=(*found, *lost),
        neighbours=(around,),
        knowledge=(),
        hidden=Hidden(tags=0, exemplars=0),
    )


def explanations(found: Evaluated) -> dict[str, Explanation]:
    """Of all contents."""
    return {one.content.id: explanation(one) for one in found.contents}
