"""`tagbus skip`: dead-letter one record that blocks its partition, and commit the offset after it.

The command joins the stopped group as its only member, so a worker that starts meanwhile fences it (KIP-447), and
nothing changes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tagbus.stream.app import console
from tagbus.stream.app.time_arguments import position
from tagbus.stream.bus.process.dead_letters import DeadLetterTopic
from tagbus.stream.bus.processor import Outgoing, Source
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Origin
from tagbus.stream.errors import DependencyDown, FieldError, Skipped, TagbusError, UserError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import failure
from tagbus.stream.kafka.errors import NO_COORDINATOR, PURGED, classify, error_of
from tagbus.stream.kafka.logs import report
from tagbus.stream.kafka.message import record_of, recorded
from tagbus.stream.kafka.metadata import list_partitions
from tagbus.stream.kafka.ranges import current_range, read_range

STAGE = "operator"
# Attempts of a retriable step of the transaction, whose outcome may be unknown.
TRIES = 5
# Timeout of a request to the brokers.
SECONDS = 30.0
# Between two requests while the group has no coordinator.
PAUSE_SECONDS = 0.1


Where = Annotated[str, typer.Argument(metavar="TOPIC:PARTITION:OFFSET", help="the record that blocks")]


def skip(where: Where) -> None:
    """Dead-letter one record so that the group continues after it. All workers must be stopped.

    The record must be the next one that the group would read.
    """
    settings, spot = load(), position(where)
    if spot.topic != settings.topics.content:
        raise UserError(f"{where}: the group reads topic {settings.topics.content}, expected a position in it")
    _require_stopped(settings)
    with _member(settings, spot) as consumer:
        letter = _letter(settings, _next(settings, consumer, spot), spot)
        if settings.kafka.delivery == "exactly_once":
            _in_one_transaction(settings, consumer, letter, spot)
        else:
            _one_after_the_other(settings, consumer, letter, spot)
    console.say(f"{where} is set aside on {letter.topic}; the group resumes at offset {spot.offset + 1}")


def _require_stopped(settings: Settings) -> None:
    """Raises UserError that names the group's members if it has any."""
    # Keep a reference: if the client is garbage-collected, the future never resolves.
    group, admin = settings.kafka.group, clients.admin(settings.kafka)
    until, found = time.monotonic() + SECONDS, None
    while found is None:
        try:
            found = admin.describe_consumer_groups([group], request_timeout=SECONDS)[group].result()
        except KafkaException as error:
            if error_of(error).code() not in NO_COORDINATOR or time.monotonic() > until:
                doing = f"group {group} cannot be described"
                raise failure(error, settings.kafka, doing, settings.topics.content) from None
            time.sleep(PAUSE_SECONDS)
    if found.members:
        names = ", ".join(sorted(f"{member.client_id} at {member.host.lstrip('/')}" for member in found.members))
        raise UserError(
            f"group {group} is active ({names}): stop its workers first; "
            f"a killed worker leaves the group after kafka.session_seconds ({settings.kafka.session_seconds:.0f})"
        )


@contextmanager
def _member(settings: Settings, spot: Origin) -> Iterator[Consumer]:
    """The only member of the group, assigned to the partition. Raises UserError if there is no such partition."""
    errors: list[TagbusError] = []

    def report(error: KafkaError) -> None:
        if ending := classify(error, settings.kafka, spot.topic):
            errors.append(ending)

    instance = {"instance": f"{settings.kafka.instance}-skip", "membership": "dynamic"}
    consumer = clients.group_member(_with(settings, instance), report)
    try:
        if (spot.topic, spot.partition) not in list_partitions(consumer, settings.kafka, spot.topic):
            raise UserError(f"topic {spot.topic} has no partition {spot.partition}")
        consumer.subscribe([spot.topic])
        until = time.monotonic() + SECONDS + settings.kafka.session_seconds
        while not any(held.partition == spot.partition for held in consumer.assignment()):
            consumer.poll(0.1)
            if errors:
                raise errors[0]
            if time.monotonic() > until:
                raise DependencyDown(f"group {settings.kafka.group} did not hand out {spot.topic}:{spot.partition}")
        consumer.pause(consumer.assignment())
        yield consumer
    finally:
        consumer.close()


def _next(settings: Settings, consumer: Consumer, spot: Origin) -> Message:
    """The record, if it is the group's next one. Raises UserError that names the group's position."""
    whole = current_range(settings.kafka, spot.topic)
    try:
        committed = consumer.committed([TopicPartition(spot.topic, number) for number in whole.ends], SECONDS)
    except KafkaException as error:
        raise failure(error, settings.kafka, "the group's committed offset cannot be read", spot.topic) from None
    offsets = {found.partition: found.offset for found in committed if found.offset >= 0}
    # Where nothing at all is committed, kafka.start decides where the group begins.
    ends = settings.kafka.start == "latest" and not offsets
    stands = offsets.get(spot.partition, (whole.ends if ends else whole.starts)[spot.partition])
    # The committed offset may be that of a transaction marker, or of a deleted record.
    message = next(read_range(settings.kafka, whole.after({spot.partition: stands})), None)
    if message is None or message.offset() != spot.offset:
        upcoming = "which is its end" if message is None else f"its next record is at {message.offset()}"
        raise UserError(
            f"group {settings.kafka.group} is at {spot.topic}:{spot.partition}:{stands}, {upcoming}: "
            f"offset {spot.offset} cannot be skipped"
        )
    return message


def _letter(settings: Settings, message: Message, spot: Origin) -> Outgoing:
    """The record as a dead letter."""
    source = Source(spot.topic, spot.partition, spot.offset, record_of(message), recorded(message))
    found = f"{spot.topic}:{spot.partition}:{spot.offset}"
    error = Skipped(STAGE, (FieldError("record", found, "one that can be tagged: an operator set it aside"),))
    topic = DeadLetterTopic(settings.topics.dead_letters, settings.batch.record_bytes)
    (letter,) = topic.letter(source, error).outgoing
    return letter


def _in_one_transaction(settings: Settings, consumer: Consumer, letter: Outgoing, spot: Origin) -> None:
    """Letter and offset in one transaction, fenced by the group (KIP-447)."""
    producer = clients.result_producer(_with(settings, {"instance": "skip"}), report)
    offsets = [TopicPartition(spot.topic, spot.partition, spot.offset + 1)]
    group = consumer.consumer_group_metadata()
    _step(settings, "init", lambda: producer.init_transactions(SECONDS))
    producer.begin_transaction()
    try:
        error = _undelivered(settings, producer, letter)
        # With a purged letter the next step fails, and says why.
        if error is not None and error.code() not in PURGED:
            raise _unpublished(settings, letter, error)
        _step(settings, "offsets", lambda: producer.send_offsets_to_transaction(offsets, group, SECONDS))
        _step(settings, "commit", lambda: producer.commit_transaction(SECONDS))
    except TagbusError:
        # Left open, it would block read_committed readers of the dead letters until it times out.
        with suppress(TagbusError):
            _step(settings, "abort", lambda: producer.abort_transaction(SECONDS))
        raise


def _one_after_the_other(settings: Settings, consumer: Consumer, letter: Outgoing, spot: Origin) -> None:
    """At least once: confirm the letter, then commit."""
    error = _undelivered(settings, clients.result_producer(settings, report), letter)
    if error is not None:
        raise _unpublished(settings, letter, error)
    try:
        consumer.commit(offsets=[TopicPartition(spot.topic, spot.partition, spot.offset + 1)], asynchronous=False)
    except KafkaException as error:
        raise failure(
            error, settings.kafka, "the letter is published, but the offset was not committed", spot.topic
        ) from None


def _undelivered(settings: Settings, producer: Producer, letter: Outgoing) -> KafkaError | None:
    """Send the letter; the error if brokers did not take it."""
    errors: list[KafkaError] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    producer.produce(letter.topic, letter.value, letter.key, on_delivery=report, headers=list(letter.headers))
    if producer.flush(SECONDS):
        raise DependencyDown(f"{settings.kafka.brokers} did not confirm the letter within {SECONDS:.0f} s")
    return errors[0] if errors else None


def _unpublished(settings: Settings, letter: Outgoing, error: KafkaError) -> TagbusError:
    return failure(error, settings.kafka, "the letter was not published", letter.topic, "Write")


def _step(settings: Settings, name: str, call: Callable[[], None]) -> None:
    """Run one step of the transaction, retrying if librdkafka calls the error retriable."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except KafkaException as error:
            if not error_of(error).retriable() or attempt == TRIES:
                doing = f"the transaction failed ({name})"
                raise failure(error, settings.kafka, doing, settings.topics.dead_letters, "Write") from None
    return None


def _with(settings: Settings, kafka: dict[str, str]) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=kafka)})
