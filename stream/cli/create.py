"""`tagbus topics create`: create missing topics, report how existing ones differ, and mend them if asked to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tagbus.stream.app import console
from tagbus.stream.app.releases.backfill import outputs
from tagbus.stream.config import Settings, load
from tagbus.stream.errors import CheckFailed, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import failure
from tagbus.stream.kafka.admin import topics as kafka_topics
from tagbus.stream.kafka.admin.layout import Difference, TopicState, differences, layout, leader, views_layout
from tagbus.stream.kafka.admin.topics import SECONDS
from tagbus.stream.kafka.rights import principal

topics = typer.Typer(help="Make the topics.", no_args_is_help=True)


@topics.callback()
def _group() -> None:
    """Make the topics."""


@topics.command()
def create(
    output: Annotated[
        str | None, typer.Option("--output", help="instead, the topics of a backfill to this one")
    ] = None,
    views: Annotated[bool, typer.Option("--views", help="also the topics of `tagbus views`")] = False,  # noqa: FBT002 - a flag of the command line
    mend: Annotated[bool, typer.Option("--mend", help="change what differs in existing topics")] = False,  # noqa: FBT002
) -> None:
    """Create the missing topics: `tags`, `exemplars`, `knowledge`, `content.versions`, `releases`, `feedback.state` and
    the views' changelogs compacted, the others kept by time. Code 3 if an existing topic would lose records or end a
    worker."""
    settings = load()
    if views and output is not None:
        raise UserError("--views: the views read `tagged`, expected no --output beside it")
    own = settings if output is None else settings.model_copy(update={"topics": outputs(settings.topics, output)})
    live = frozenset(() if output is None else layout(settings))
    names = [name for name in layout(own) if name not in live] + (list(settings.views.topics) if views else [])
    admin = clients.admin(settings.kafka)
    created = _create(admin, own, names)
    found = _states(admin, own, [*names, own.topics.content, own.topics.feedback])
    left = sum([_report(admin, own, name, found, mend=mend) for name in names if name in found and name not in created])
    if left:
        advice = "" if mend else "; `tagbus topics create --mend` changes what can be changed"
        raise CheckFailed(f"{left} of these must be fixed before `tagbus run`{advice}")


def create_all(settings: Settings) -> None:
    """Create the missing topics, those of the views included, and print each. Raises UserError or DependencyDown."""
    _create(clients.admin(settings.kafka), settings, [*layout(settings), *settings.views.topics])


def _create(admin: AdminClient, settings: Settings, names: Sequence[str]) -> list[str]:
    """Create topics; returns those that did not exist."""
    every = layout(settings) | views_layout(settings)
    wanted = {name: one for name, one in every.items() if name in names}
    led = {name: followed for name in wanted if (followed := leader(settings, name)) is not None}
    there = _states(admin, settings, [settings.topics.content, *led.values()])
    for name, followed in led.items():
        if followed in there:
            count, one = there[followed].partitions, wanted[name]
            wanted[name] = replace(one, partitions=max(count, one.partitions) if one.grows else count)
    created = kafka_topics.create(admin, settings.kafka, wanted)
    for name in created:
        console.say(f"created {name} with {_counted(wanted[name].partitions)}")
    return created


def _states(admin: AdminClient, settings: Settings, names: Sequence[str]) -> dict[str, TopicState]:
    try:
        cluster = admin.list_topics(timeout=SECONDS)
    except KafkaException as error:
        raise failure(error, settings.kafka, "no broker lists the topics", names[0], "Describe") from None
    return kafka_topics.states(admin, cluster, names, SECONDS)


def _report(admin: AdminClient, settings: Settings, name: str, found: Mapping[str, TopicState], *, mend: bool) -> bool:
    """Print how a topic differs, and mend it if asked to; returns whether a harmful difference is left."""
    said, harmful = [f"{name} exists already"], False
    if found[name].configuration is None:
        if mend:
            # A principal that may change them may read them.
            who = principal(settings.kafka)
            raise UserError(f"Kafka refuses {who}: grant AlterConfigs on topic {name} (its settings are not disclosed)")
        said.append("unsure: its settings are not disclosed (DescribeConfigs)")
    for one in differences(settings, name, found):
        if mend and (reason := _mend(admin, settings, name, one)) is None:
            said.append(f"mended: {one.words}")
        else:
            said.append(one.words + (f" ({reason})" if mend else ""))
            harmful = harmful or one.harmful
    console.say("; ".join(said))
    return harmful


def _mend(admin: AdminClient, settings: Settings, name: str, one: Difference) -> str | None:
    """Mend one difference. Returns why it is left; None if it is mended."""
    kafka = settings.kafka
    if one.settings:
        kafka_topics.configure(admin, kafka, name, one.settings)
        return None
    if one.partitions is None:
        return f"left: {one.left}"
    wanted = (layout(settings) | views_layout(settings))[name]
    if not wanted.grows and not kafka_topics.empty(kafka, name):
        return "left: it holds records, and their keys would move to other partitions"
    kafka_topics.add_partitions(admin, kafka, name, one.partitions)
    return None


def _counted(partitions: int) -> str:
    return f"{partitions} partition{'s' * (partitions > 1)}"
