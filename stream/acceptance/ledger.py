"""Check that every input has exactly one output: the offsets of `content` against the source headers of the outputs."""

from collections import Counter
from dataclasses import dataclass

from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import read_source
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.ranges import read_all

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Inputs and their outputs under read_committed. `doubled`: outputs beyond the first of an input."""

    sent: int
    tagged: int
    dead_lettered: int
    lost: int
    invented: int
    doubled: int

    def faults(self, settings: Settings) -> list[str]:
        """The violations, in words. Every content that is published is valid, so a dead letter is one. With
        at_least_once, doubled outputs are allowed."""
        exactly = settings.kafka.delivery == "exactly_once"
        found = {
            "lost": self.lost,
            "invented": self.invented,
            "doubled": self.doubled if exactly else 0,
            "dead-lettered": self.dead_lettered,
        }
        return [f"{count} {name}" for name, count in found.items() if count]


def compare(settings: Settings) -> Outcome:
    """Read the three topics to their current ends."""
    kafka, names = settings.kafka, settings.topics
    given = {(message.partition() or 0, message.offset() or 0) for message in read_all(kafka, names.content)}
    tagged, dead = (_sources(settings, topic) for topic in (names.tagged, names.dead_letters))
    found = tagged + dead
    return Outcome(
        sent=len(given),
        tagged=tagged.total(),
        dead_lettered=dead.total(),
        lost=len(given - found.keys()),
        invented=len(found.keys() - given),
        doubled=found.total() - len(found),
    )


def _sources(settings: Settings, topic: str) -> Counter[Position]:
    sources = (read_source(record_of(message).headers) for message in read_all(settings.kafka, topic))
    return Counter((one.partition, one.offset) for one in sources)
