"""The topic `budget`: each worker's spending on a language model per minute and per day, and its reservations.

It is compacted. A key is group, period and worker, so each record has one writer; a null value drops a past minute.
"""

from typing import Annotated, Final

from pydantic import Field, FiniteFloat, StringConstraints

from tagbus.stream.contract.codec import Record, Tombstone, parse
from tagbus.stream.contract.field_errors import invalid
from tagbus.stream.contract.fields import Event
from tagbus.stream.errors import shorten

# A day, or a minute of one, in UTC: `2026-11-28`, `2026-11-28T10:15`.
PERIOD: Final = r"^\d{4}-\d\d-\d\d(T\d\d:\d\d)?$"
PART: Final = r"^[^/]{1,255}$"

Name = Annotated[str, StringConstraints(pattern=PART)]


class Amount(Event):
    """Tokens, and what they cost."""

    tokens: int = Field(0, ge=0, description="of prompts and answers")
    cost: Annotated[FiniteFloat, Field(ge=0)] = Field(0.0, description="in USD")


class Spending(Event):
    """The spending of one worker in a period. Reserved amounts may have been spent too; that is settled later."""

    group: Name = Field(description="the workers' consumer group, which shares a budget")
    period: Annotated[str, StringConstraints(pattern=PERIOD)] = Field(description="a day or a minute, UTC")
    worker: Name = Field(description="the worker's name (kafka.instance)")
    spent: Amount = Field(description="what calls took")
    reserved: Amount = Field(description="what calls may have taken since")

    @property
    def key(self) -> str:
        """Of its record."""
        return f"{self.group}/{self.period}/{self.worker}"


def encode_spending(spending: Spending) -> Record:
    """Encode it as a record."""
    return Record(spending.key.encode(), spending.model_dump_json().encode())


def decode_spending(record: Record) -> Spending | Tombstone:
    """Decode a record of `budget`. Raises Undecodable or InvalidEvent."""
    if record.key is None:
        raise invalid("key", "(missing)", "GROUP/PERIOD/WORKER")
    key = record.key.decode(errors="replace")
    if record.value is None:
        return Tombstone(key)
    spending = parse(record.value, Spending)
    if key != spending.key:
        raise invalid("key", shorten(key), f"{shorten(spending.key)}, as the value says")
    return spending
