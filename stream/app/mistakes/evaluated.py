"""Tagged contents with their right tags: the data behind every part of the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tagbus.stream.contract.events import Content, ScoredTag, Tag, TaggedContent

# A tag counts as found if it is among this many best ones.
FOUND = 10


@dataclass(frozen=True, slots=True)
class Tagged:
    """A content, its right tags, and the found tags, best first."""

    content: Content
    right: frozenset[str]
    found: Sequence[ScoredTag]

    @property
    def missing(self) -> list[str]:
        """The right tags that were not found, by id."""
        return sorted(self.right - {tag.id for tag in self.found})

    def wrong(self) -> Iterator[ScoredTag]:
        """The found tags that people did not give the content, best first."""
        return (tag for tag in self.found if tag.id not in self.right)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Tagged contents, the tags by id, and the number of contents in memory that carry each tag."""

    contents: Sequence[Tagged]
    tags: Mapping[str, Tag]
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        contents: Sequence[Content],
        truth: Mapping[str, frozenset[str]],
        results: Sequence[TaggedContent],
        tags: Sequence[Tag],
        counts: Mapping[str, int],
    ) -> "Evaluated":
        """From results in the order of the contents."""
        tagged = [
            Tagged(content, truth[content.id], result.tags[:FOUND])
            for content, result in zip(contents, results, strict=True)
        ]
        return cls(tagged, {tag.id: tag for tag in tags}, counts)

    def name(self, tag_id: str) -> str:
        """The name of a tag, or its id where the taxonomy has no such tag."""
        tag = self.tags.get(tag_id)
        return tag_id if tag is None else tag.name


@dataclass(frozen=True, slots=True)
class About:
    """A row of figures: its name, its method and the figures."""

    name: str
    method: str
    figures: Mapping[str, float]
