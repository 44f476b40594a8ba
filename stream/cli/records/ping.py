"""`tagbus ping`: send one content through the running service and read its result, as `helm test` does."""

import time
import uuid
from typing import Annotated

import typer

from tagbus.stream.app import console
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, Tombstone, decode_tagged, encode_record
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.contract.fields import TEST_ID
from tagbus.stream.errors import DependencyDown, Poison
from tagbus.stream.kafka.message import record_of
from tagbus.stream.kafka.reader import TopicReader
from tagbus.stream.kafka.writer import TopicWriter

TITLE = "Bees in the city"
TEXT = "Hives on roofs, and where their honey goes."


def ping(
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="how long each answer may take")] = 120.0,
) -> None:
    """Send one content, read its tags, withdraw it and read the withdrawal.

    Its id begins with tagbus-helm-test-, so that nothing is learnt from it. Code 4 if an answer does not come in time.
    """
    settings = load()
    name = f"{TEST_ID}{uuid.uuid4()}"
    withdrawal = Record(name.encode(), None)
    with TopicReader(settings.kafka) as reader:
        # Positioned at the ends before anything is sent, so that no answer is missed.
        reader.discover([settings.topics.tagged], "end")
        since = _send(settings, encode_record(Content(id=name, title=TITLE, text=TEXT)))
        try:
            result = _answer(settings, reader, name, since + seconds)
        except BaseException:
            _send(settings, withdrawal)
            raise
        if isinstance(result, TaggedContent):
            tags = ", ".join(f"{tag.name} {tag.confidence:.2f}" for tag in result.tags) or "no tags"
            console.print_line(f"{name} is tagged after {time.monotonic() - since:.1f} s: {console.printable(tags)}")
        since = _send(settings, withdrawal)
        while not isinstance(result, Tombstone):
            result = _answer(settings, reader, name, since + seconds)
        console.print_line(f"{name} is withdrawn after {time.monotonic() - since:.1f} s")


def _send(settings: Settings, record: Record) -> float:
    """Send it to `content`; returns the time of the broker's confirmation."""
    with TopicWriter(settings.kafka, settings.topics.content) as writer:
        writer.send(record)
    return time.monotonic()


def _answer(settings: Settings, reader: TopicReader, name: str, until: float) -> TaggedContent | Tombstone:
    """The next result of the content. Raises DependencyDown if none arrives before `until`."""
    key = name.encode()
    while time.monotonic() < until:
        for message in reader.read(1, 0.5).messages:
            record = record_of(message)
            if record.key == key:
                try:
                    return decode_tagged(record)
                except Poison as error:
                    raise DependencyDown(f"{settings.topics.tagged}: not from tagbus: {error.errors[0]}") from None
    raise DependencyDown(
        f"topic {settings.topics.tagged} has no result of {name} in time: check that a worker is ready (/readyz), and "
        f"look for a record of it on {settings.topics.dead_letters}"
    )
