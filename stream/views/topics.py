"""Check the views' topics before Faust starts: it would wait forever for one that is missing or that it may not use,
and fail in the middle of its work if numbers of partitions differ."""

from confluent_kafka import KafkaException

from tagbus.stream.config import Settings
from tagbus.stream.errors import TopicMissing, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import failure, missing_group_right, missing_rights
from tagbus.stream.kafka.admin.layout import COMPACT, POLICY
from tagbus.stream.kafka.admin.topics import SECONDS, states
from tagbus.stream.kafka.rights import Operation


def require_topics(settings: Settings) -> int:
    """The number of partitions of `tagged`, which each topic of the views has too.

    Raises UserError for a right that is missing, and for a topic that is missing, has another number, or is a changelog
    that keeps records by time; DependencyDown if no broker answers.
    """
    source, own = settings.topics.tagged, settings.views
    both: list[tuple[Operation, str]] = [(operation, name) for name in own.topics for operation in ("Read", "Write")]
    refused = missing_rights(settings.kafka, [("Read", source), *both])
    if refused := refused or missing_group_right(settings.kafka, own.group):
        raise refused
    admin = clients.admin(settings.kafka)
    try:
        cluster = admin.list_topics(timeout=SECONDS)
    except KafkaException as error:
        raise failure(error, settings.kafka, "no broker lists the topics", source, "Describe") from None
    found = states(admin, cluster, [source, *own.topics], SECONDS)
    if source not in found:
        raise TopicMissing(source)
    wanted = found[source].partitions
    for name in own.topics:
        if name not in found:
            raise UserError(f"topic {name} does not exist; `tagbus topics create --views` creates it")
        if found[name].partitions != wanted:
            raise UserError(
                f"topic {name} has {found[name].partitions} partitions and {source} {wanted}: expected as many. Where "
                f"{source} got more, set TAGBUS_VIEWS__GROUP to another name and create the views again"
            )
        policy = (found[name].configuration or {}).get(POLICY, COMPACT)
        if name != own.changes and policy != COMPACT:
            raise UserError(f"topic {name}: {POLICY} is {policy}, expected {COMPACT}, or rows are lost after a while")
    return wanted
