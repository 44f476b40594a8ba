"""A release in shadow: it tags the newest contents beside the one in force, and nothing is published."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tagbus.stream.app.places import folders
from tagbus.stream.app.releases import recorded, shadow
from tagbus.stream.app.releases.behaviour import Limits, ReleaseBehaviour
from tagbus.stream.app.releases.loaded import fitting
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import decode_content
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import Poison, UserError
from tagbus.stream.index.releases import Releases
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import OffsetRange, current_range, read_range
from tagbus.stream.tagger import Failure, Outcome

BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class ShadowRun:
    """What both releases did with the same contents, and how often their first tags agree."""

    fresh: ReleaseBehaviour
    old: ReleaseBehaviour
    agreeing: int

    def problems(self, limits: Limits) -> Iterator[str]:
        """Why the new one should not go live. Its confidences are its own: they may differ from the old one's."""
        unmoved = ReleaseBehaviour(self.old.failed, self.old.without_tags, self.fresh.confidences)
        yield from self.fresh.problems(unmoved, limits)

    def __str__(self) -> str:
        def words(one: ReleaseBehaviour) -> str:
            return f"{one.failures:.1%} failed, {one.abstention:.1%} got no tag"

        share = self.agreeing / max(1, self.fresh.contents)
        return (
            f"in shadow on {self.fresh.contents:,} contents: {words(self.fresh)}; in force: {words(self.old)}; "
            f"the first tag is the same for {share:.1%}"
        )


async def run(settings: Settings, name: str, count: int) -> ShadowRun:
    """Tag the newest `count` contents with release `name` and with the one in force, each with the memory of now.

    Raises UserError where there are no contents, and as the opening of a release does.
    """
    releases = recorded.read_releases(settings)
    contents = newest(settings, count)
    if not contents:
        raise UserError(f"topic {settings.topics.content} holds no content to run {name} on in shadow")
    active = recorded.in_force(settings, releases)
    outcomes = [await _outcomes(settings, one, releases, contents) for one in (name, active)]
    fresh, old = (_observed(one) for one in outcomes)
    firsts = zip(*([_first(outcome) for outcome in one] for one in outcomes), strict=True)
    agreeing = sum(one is not None and one == other for one, other in firsts)
    return ShadowRun(fresh, old, agreeing)


def newest(settings: Settings, count: int) -> list[Content]:
    """The newest contents of the topic, a share of each partition, without what cannot be decoded or was withdrawn."""
    whole = current_range(settings.kafka, settings.topics.content)
    each = -(-count // max(1, len(whole.ends)))
    starts = {number: max(whole.starts[number], end - each) for number, end in whole.ends.items()}
    found: dict[str, Content] = {}
    for message in read_range(settings.kafka, OffsetRange(whole.topic, starts, whole.ends)):
        try:
            event = decode_content(record_of(message))
        except Poison:
            continue
        if isinstance(event, Content):
            found[event.id] = event
    return list(found.values())[-count:]


async def _outcomes(settings: Settings, name: str, releases: Releases, contents: Sequence[Content]) -> list[Outcome]:
    own = recorded.own(settings, name, releases.records.get(name))
    async with shadow.complete(own, folders.snapshot_folder(settings, name)) as stack:
        tagger = stack.tagger(fitting(stack, releases.calibrations_of(name)))
        batches = (contents[start : start + BATCH] for start in range(0, len(contents), BATCH))
        return [outcome for batch in batches for outcome in await tagger.tag(batch)]


def _observed(outcomes: Sequence[Outcome]) -> ReleaseBehaviour:
    found = ReleaseBehaviour(failed=sum(isinstance(one, Failure) for one in outcomes))
    for one in outcomes:
        if isinstance(one, TaggedContent):
            found.add(one)
    return found


def _first(outcome: Outcome) -> str | None:
    """The first tag; None for a content that got none."""
    return outcome.tags[0].id if isinstance(outcome, TaggedContent) and outcome.tags else None
