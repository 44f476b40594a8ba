"""The topics as a corpus by time: the newest decisions are compared on, everything older is trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tagbus.models.data.splits import Split, one_in
from tagbus.models.data.topics import TopicCorpus
from tagbus.stream.app.data.corpus import WithSuccessors
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError

# The share of the contents decided since a time that is compared on, the newest ones: one in so many.
COMPARED: Final = 3
# Fewer contents than that to compare on prove nothing.
LEAST_COMPARED: Final = 30
# One in so many of the contents that are trained on is for validation.
VALIDATION: Final = 10


@dataclass(frozen=True, slots=True)
class RecentCorpus:
    """Contents whose decisions are known, in memory: about 1 kB a title. `test`: what is compared on, oldest first."""

    taxonomy: Sequence[Tag]
    learnt: Sequence[Exemplar]
    compared: Sequence[Exemplar]

    def tags(self) -> list[Tag]:
        """The tags in force."""
        return list(self.taxonomy)

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        """Test: the newest contents. A tenth of the others, by their ids, is for validation."""
        if split == "test":
            return iter(self.compared)
        return (item for item in self.learnt if one_in(VALIDATION, item.id) == (split == "val"))


@dataclass(frozen=True, slots=True)
class _All:
    """The topics without a split."""

    topics: TopicCorpus

    def tags(self) -> list[Tag]:
        return self.topics.tags()

    def exemplars(self, _: Split) -> Iterator[Exemplar]:
        return self.topics.decided()


def read(settings: Settings, since: datetime) -> RecentCorpus:
    """Read the topics to their current ends. Raises UserError where too few contents were decided since then."""
    corpus = WithSuccessors(_All(TopicCorpus(settings)))
    return split(corpus.tags(), list(corpus.exemplars("train")), since)


def split(tags: Sequence[Tag], items: Sequence[Exemplar], since: datetime) -> RecentCorpus:
    """Split by the time of the decisions: of those since then the newest third is compared on."""
    fresh = sorted((item for item in items if is_since(item, since)), key=lambda item: (item.time, item.id))
    count = len(fresh) // COMPARED
    if count < LEAST_COMPARED:
        raise UserError(
            f"--since: {len(fresh)} contents were decided since {since:%Y-%m-%dT%H:%M:%SZ}; expected at least "
            f"{COMPARED * LEAST_COMPARED}, of which the newest third is compared on"
        )
    compared = fresh[len(fresh) - count :]
    apart = {item.id for item in compared}
    return RecentCorpus(tags, [item for item in items if item.id not in apart], compared)


def is_since(item: Exemplar, since: datetime) -> bool:
    """Whether people decided about a content since a time; one without a time is old."""
    return item.time is not None and item.time >= since
