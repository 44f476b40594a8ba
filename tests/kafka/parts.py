"""Shared by the tests of security: a principal with separate topics, and its worker that follows a memory."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from confluent_kafka.admin import AdminClient

from tagbus.stream.config import Settings
from tagbus.stream.index.apply import Projection
from tagbus.stream.index.bootstrap import Follower
from tagbus.stream.index.releases import ReleaseFollower
from tests.bus.harness import Running, settings
from tests.bus.taggers import Trivial
from tests.index.parts import encoder, memory
from tests.kafka.rights import Right, grant
from tests.kafka.secured import SecuredKafka
from tests.support import Layout, create_topics, unique

TOPICS = (
    *("content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "releases"),
    *("feedback", "feedback_state", "feedback_dead_letters"),
)
COMPACTED = frozenset({"tags", "exemplars", "knowledge", "versions", "releases", "feedback_state"})
COMPACT: Layout = (1, {"cleanup.policy": "compact"})
LAYOUT: Mapping[str, Layout] = {topic: COMPACT if topic in COMPACTED else 1 for topic in TOPICS}
# Those of `tagbus views`, which begin with the name of its group.
VIEWS: Mapping[str, Layout] = {
    "views-changes": 1,
    "views-contents-changelog": COMPACT,
    "views-tags-changelog": COMPACT,
}
# A setting of each can be mended, but of `content`: a wrong cleanup.policy, or too low a limit.
SPOILT: Mapping[str, Layout] = {
    topic: 1 if topic in COMPACTED else (1, {"max.message.bytes": "1000"}) for topic in TOPICS
}


@dataclass
class Tenant:
    """A principal without rights, and unique names of topics, a group and a transaction."""

    broker: SecuredKafka
    user: str
    options: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)
    listener: str = "SASL_SSL"

    @cached_property
    def names(self) -> dict[str, str]:
        own = {name: unique(name) for name in (*TOPICS, "budget", "views", "group", "transactional_id")}
        return own | {name: name.replace("views", own["views"], 1) for name in VIEWS}

    @property
    def topics(self) -> dict[str, str]:
        return {topic: self.names[topic] for topic in TOPICS}

    def make_topics(self, layout: Mapping[str, Layout] = LAYOUT) -> None:
        create_topics(self.broker.address, {self.names[topic]: one for topic, one in layout.items()})

    def may(self, rights: Iterable[Right]) -> None:
        grant(AdminClient({"bootstrap.servers": self.broker.address}), self.user, rights, self.names)

    def settings(self, **kafka: object) -> Settings:
        """Of a worker of this principal."""
        own = {name: self.names[name] for name in ("group", "transactional_id")}
        given = {"options": dict(self.options), "secrets": dict(self.secrets), **own, **kafka}
        return settings(self.broker.at(self.listener), self.topics, kafka=given, tagger={"write_back": 0.5})

    def environment(self) -> dict[str, str]:
        """The same for the command, names without the prefix."""
        return {
            "KAFKA__BROKERS": self.broker.at(self.listener),
            "KAFKA__GROUP": self.names["group"],
            "KAFKA__TRANSACTIONAL_ID": self.names["transactional_id"],
            "KAFKA__OPTIONS": json.dumps(dict(self.options)),
            "KAFKA__SECRETS": json.dumps(dict(self.secrets)),
            "TOPICS__PARTITIONS": "1",
            "TOPICS__BUDGET": self.names["budget"],
            "VIEWS__GROUP": self.names["views"],
            **{f"TOPICS__{topic.upper()}": name for topic, name in self.topics.items()},
        }


def tenants(broker: SecuredKafka, users: Mapping[str, str]) -> Iterator[Tenant]:
    """A tenant for each user, by SCRAM-SHA-512."""
    for user, password in users.items():
        options = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "ssl.ca.location": str(broker.ca),
        }
        yield Tenant(broker, user, options, {"sasl.password": password})


def worker(given: Settings) -> Running:
    """A worker that follows releases and memory, as `tagbus run` does; its topics are empty, so nothing is encoded."""
    following: list[asyncio.Task[None]] = []
    running: list[Running] = []

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and running:
            running[0].worker.fail(error)

    async def follow(follower: Follower) -> None:
        await asyncio.gather(ReleaseFollower(given, lambda _: None).run(), follower.run())

    async def gate() -> None:
        follower = Follower(given, Projection(encoder(), memory()))
        following.append(asyncio.create_task(follow(follower)))
        following[0].add_done_callback(ended)
        opened = asyncio.create_task(follower.ready.wait())
        await asyncio.wait({following[0], opened}, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if following[0].done():
            following[0].result()

    running.append(Running(given, Trivial(), gate))
    return running[0]
