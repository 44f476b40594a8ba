"""Explain a content's tags to a person: evidence, and the ranker's features."""

import math
import textwrap
from collections.abc import Iterator

from tagbus.stream.app.console import printable
from tagbus.stream.contract.events import Content, Evidence, ScoredTag
from tagbus.stream.tagger import Explained, Features

WIDTH = 110
INDENT = "     "


def text(content: Content, found: Explained) -> str:
    """Describe one content: its versions, and for each tag confidence, score, evidence and features."""
    result = found.result
    versions = {
        "release": result.versions.release,
        **result.versions.components,
        "calibration": result.versions.calibration,
    }
    lines = [
        f"{printable(content.id)}: {printable(content.title or content.text[:WIDTH])}",
        "  " + ", ".join(f"{_said(what)} {printable(name)}" for what, name in versions.items()),
    ]
    for number, tag in enumerate(result.tags, start=1):
        lines += _of_tag(number, tag, found.features.get(tag.id, {}))
    return "\n".join(lines) if result.tags else "\n".join([*lines, "  no tags"])


def _of_tag(number: int, tag: ScoredTag, features: Features) -> Iterator[str]:
    yield (
        f"  {number}. {printable(tag.name)} ({printable(tag.id)}): confidence {tag.confidence:.4g}, "
        f"score {tag.score:.4g} by {tag.stage}"
    )
    yield from _wrapped(", ".join(_evidence(tag.evidence)) or "no evidence")
    if features:
        yield from _wrapped("  ".join(f"{name}={_number(value)}" for name, value in features.items()))


def _evidence(evidence: Evidence) -> Iterator[str]:
    if evidence.decided:
        yield "people accepted it for this content"
    for words in evidence.matched.values():
        yield f"'{printable(words)}' stands in it"
    if evidence.similarity is not None:
        yield f"similarity {evidence.similarity:.4g}"
    for component, score in evidence.scores.items():
        yield f"{_said(component)} {score:.4g}"
    if evidence.votes:
        named = ", ".join(f"{printable(one.id)} by {one.source} {one.similarity:.4g}" for one in evidence.neighbours)
        yield f"{evidence.votes} votes" + (f" ({named})" if named else "")


def _said(component: str) -> str:
    return printable(component.replace("_", "-"))


def _number(value: float) -> str:
    # A ranker's unknown values are NaN.
    return "-" if math.isnan(value) else f"{value:.4g}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False)
