"""The topics that tagbus needs, and how existing topics differ from them.

A topic that was created otherwise, for instance by a broker with auto.create.topics.enable, may have one partition and
retention by time: then the taxonomy is deleted after a week, and results on `tagged` have no tags.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tagbus.stream.config import Settings

POLICY: Final = "cleanup.policy"
COMPACT: Final = "compact"
TOMBSTONES: Final = "delete.retention.ms"
BYTES: Final = "max.message.bytes"
# Kafka's default of max.message.bytes, and the room for key and headers of our records beside the value.
KAFKA_BYTES: Final = 1_048_588
RECORD_ROOM: Final = 48_000
HOUR_MS: Final = 3_600_000
# Why `topics create --mend` does not end compaction.
KEPT: Final = "without compaction the broker removes what is older than retention.ms; change it yourself if that may go"

Configuration = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The specification of a topic, as `tagbus topics create` creates it.

    `least`: minimum settings by name, for which Kafka's defaults are not enough; larger values are fine. `grows`:
    whether partitions may be added while the topic holds records. `exact`: it has exactly as many partitions as the
    topic that it follows.
    """

    partitions: int
    replication: int
    policy: str
    least: Mapping[str, int]
    grows: bool = False
    exact: bool = False

    @property
    def configuration(self) -> Configuration:
        """The settings that it is created with."""
        ours = {name: str(value) for name, value in self.least.items() if name != BYTES or value > KAFKA_BYTES}
        return {POLICY: self.policy, **ours}


@dataclass(frozen=True, slots=True)
class TopicState:
    """An existing topic. `configuration`: None if the cluster does not disclose it."""

    partitions: int
    replication: int
    configuration: Configuration | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a topic differs.

    `harmful`: records may be lost, or `tagbus run` rejects the topic. The remedy: `settings` to change, or
    `partitions`, the number that it should have. `left`: why there is none.
    """

    words: str
    harmful: bool
    settings: Configuration
    partitions: int | None = None
    left: str = "partitions cannot be removed, nor replicas added here"


def layout(settings: Settings) -> dict[str, Wanted]:
    """Every topic that tagbus needs."""
    names, most = settings.topics, settings.topics.partitions
    # Tombstones must outlive a memory that is down for some time.
    tombstones = {TOMBSTONES: int(settings.memory.tombstone_hours * HOUR_MS)}
    bytes_ = {BYTES: settings.batch.record_bytes + RECORD_ROOM}

    def wanted(policy: str, least: Mapping[str, int], partitions: int = most, *, grows: bool = False) -> Wanted:
        return Wanted(partitions, names.replication, policy, least, grows)

    budget = {names.budget: wanted(COMPACT, {}, 1)} if settings.llm.url and settings.budget.limited else {}
    return {
        names.content: wanted("delete", {}),
        names.tags: wanted(COMPACT, tombstones),
        names.exemplars: wanted(COMPACT, tombstones | bytes_),
        names.knowledge: wanted(COMPACT, tombstones),
        names.tagged: wanted("delete", bytes_),
        names.dead_letters: wanted("delete", bytes_),
        # A version is in the partition of the same number as its content, whatever its key.
        names.versions: wanted(COMPACT, {}, grows=True),
        names.releases: wanted(COMPACT, {}, 1),
        names.feedback: wanted("delete", bytes_),
        names.feedback_state: wanted(COMPACT, tombstones | bytes_),
        names.feedback_dead_letters: wanted("delete", bytes_),
        **budget,
    }


def views_layout(settings: Settings) -> dict[str, Wanted]:
    """The additional topics that `tagbus views` needs."""
    names, own = settings.topics, settings.views

    def wanted(policy: str) -> Wanted:
        least = {BYTES: own.row_bytes}
        return Wanted(names.partitions, names.replication, policy, least, exact=True)

    return {
        own.changes: wanted("delete"),
        own.content_changelog: wanted(COMPACT),
        own.tag_changelog: wanted(COMPACT),
    }


def leader(settings: Settings, name: str) -> str | None:
    """The topic with which this one must be co-partitioned; None for an independent one."""
    names = settings.topics
    views = dict.fromkeys(settings.views.topics, names.tagged)
    return {names.versions: names.content, names.feedback_state: names.feedback, **views}.get(name)


def compacted(settings: Settings) -> Sequence[str]:
    """The topics from which a worker needs the last record of each key, however old it is."""
    return [name for name, wanted in layout(settings).items() if wanted.policy == COMPACT]


def differences(settings: Settings, name: str, found: Mapping[str, TopicState]) -> list[Difference]:
    """How a topic differs from the one that `layout` or `views_layout` names; `found`: the topics that exist."""
    wanted, state = (layout(settings) | views_layout(settings))[name], found[name]
    return [*_of_partitions(settings, name, wanted, found), *_of_replicas(wanted, state), *_of_settings(wanted, state)]


def _of_partitions(
    settings: Settings, name: str, wanted: Wanted, found: Mapping[str, TopicState]
) -> Iterator[Difference]:
    count, followed = found[name].partitions, leader(settings, name)
    needed = found[followed].partitions if followed is not None and followed in found else 1
    if wanted.exact and count > needed:
        yield Difference(f"{count} partitions, expected the {needed} of {followed}", True, {})
    elif count < needed:
        words = f"{count} partitions, expected at least the {needed} of {followed}"
        yield Difference(words, True, {}, needed if wanted.exact else max(needed, wanted.partitions))
    elif count < wanted.partitions and not wanted.exact:
        yield Difference(f"{count} partitions, {wanted.partitions} in the settings", False, {}, wanted.partitions)


def _of_replicas(wanted: Wanted, state: TopicState) -> Iterator[Difference]:
    if state.replication < wanted.replication:
        yield Difference(f"{state.replication} replicas, {wanted.replication} in the settings", False, {})


def _of_settings(wanted: Wanted, state: TopicState) -> Iterator[Difference]:
    if state.configuration is None:
        return
    policy = state.configuration.get(POLICY, "")
    if policy != wanted.policy:
        words = f"{POLICY} is {policy}, expected {wanted.policy}"
        if COMPACT in policy.split(",") and wanted.policy != COMPACT:
            yield Difference(words, True, {}, left=KEPT)
        else:
            yield Difference(words, True, {POLICY: wanted.policy})
    for name, least in wanted.least.items():
        value = state.configuration.get(name, "")
        if value.isdigit() and int(value) < least:
            yield Difference(f"{name} is {value}, expected at least {least}", True, {name: str(least)})
