"""Metrics of tagged contents: confidences, tags, skipped stages, drift."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from tagbus.stream import telemetry
from tagbus.stream.config import DriftSettings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.contract.fields import TEST_ID
from tagbus.stream.llm.component import NAME as JUDGE
from tagbus.stream.recall.scripts import DENSE, language_of
from tagbus.stream.telemetry.drift import WORDS_A_CONTENT, Drift, Tagged, checksums

# The part of a title and a text that is looked at.
_CHARACTERS: Final = 2_000
# A character of a script without spaces is a word.
_WORD: Final = re.compile(rf"[{DENSE}]|(?:(?![{DENSE}])\w)+")


# Not frozen, like everything created per content.
@dataclass(slots=True)
class Observed:
    """The counted facts of a published result. `best`: the confidence of its best tag, None without tags."""

    best: float | None
    tags: int
    degraded: tuple[str, ...]


def observed(result: TaggedContent) -> Observed:
    """The counted facts of a result."""
    tags = result.tags
    best = max([tag.confidence for tag in tags]) if tags else None
    return Observed(best, len(tags), tuple([one.stage for one in result.degraded]) if result.degraded else ())


def path_of(result: TaggedContent) -> str:
    """The path of a result, as telemetry.PATHS has it."""
    if result.degraded:
        return "degraded"
    return "judged" if JUDGE in result.path else "tagged"


def count(results: Sequence[Observed]) -> None:
    """Count published results."""
    telemetry.CONFIDENCE.observe([one.best for one in results if one.best is not None])
    tags = [one.tags for one in results]
    telemetry.TAGS.observe(tags)
    telemetry.ABSTAINED.inc(tags.count(0))
    for stage, number in Counter([stage for one in results if one.degraded for stage in set(one.degraded)]).items():
        telemetry.DEGRADED.labels(stage=stage).inc(number)


class DriftWatch:
    """Samples tagged contents for drift (telemetry/drift.py). Belongs to the loop thread."""

    def __init__(self, settings: DriftSettings) -> None:
        """Raises UserError for a file without a reference."""
        self._drift = Drift(settings) if settings.contents_per_second else None

    def look(self, contents: Sequence[Content], results: Sequence[object]) -> None:
        """Look at contents and their outcomes; skips contents that were not tagged and those that test an
        installation."""
        if self._drift is None:
            return
        tagged: dict[str, list[Tagged]] = {}
        for index in self._drift.wanted(len(contents)):
            content, result = contents[index], results[index]
            if isinstance(result, TaggedContent) and not content.id.startswith(TEST_ID):
                tagged.setdefault(result.versions.release, []).append(_tagged(content, observed(result)))
        for release, some in tagged.items():
            self._drift.observe(release, some)


def _tagged(content: Content, seen: Observed) -> Tagged:
    text = f"{content.title}\n{content.text[:_CHARACTERS]}"[:_CHARACTERS]
    words = checksums(match.group() for match in islice(_WORD.finditer(text.casefold()), WORDS_A_CONTENT))
    return Tagged(seen.best, seen.tags, language_of(content.language, text), words)
