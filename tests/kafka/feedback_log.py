"""A log of decisions, and what must hold of what a joiner makes of it."""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from confluent_kafka import Message, Producer

from tagbus.stream.contract.codec import Origin, Record, Tombstone, decode_decision, decode_exemplar, read_source
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.feedback.history import History, after, exemplar
from tagbus.stream.kafka.message import record_of
from tests.support import consume_all, produce

LIMIT = 1_000_000
START = datetime(2026, 1, 31, 9, tzinfo=UTC)


def decisions(count: int, people: int, contents: int, seed: int = 7) -> list[Decision]:
    """So many decisions; one in ten takes back an earlier one of its content, one in ten is an adjudication."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    of_content: dict[str, list[str]] = {}
    found = []
    for number in range(count):
        content = f"c{chance.randrange(contents)}"
        earlier = of_content.setdefault(content, [])
        gone = (chance.choice(earlier),) if earlier and chance.random() < 0.1 else ()
        tags = chance.sample([f"t{n}" for n in range(8)], 3)
        earlier.append(f"d{number}")
        found.append(
            Decision(
                id=content,
                decision=f"d{number}",
                supersedes=gone,
                who=f"p{chance.randrange(people)}",
                time=START + timedelta(seconds=number),
                mode="adjudicate" if chance.random() < 0.1 else "review",
                accepted=tuple(tags[:2]),
                rejected=tuple(tags[2:]),
                title=f"Title {content}" if chance.random() < 0.5 else "",
            )
        )
    return found


def undone(decided: Iterable[Decision]) -> list[Decision]:
    """Decisions that take back these, the last one first, and say nothing else."""
    empty = {"accepted": (), "rejected": (), "title": "", "mode": "review"}
    return [
        one.model_copy(update={**empty, "decision": f"u-{one.decision}", "supersedes": (one.decision,)})
        for one in reversed(list(decided))
    ]


def send(address: str, topic: str, decided: Iterable[Decision]) -> None:
    produce(address, topic, [(one.id.encode(), one.model_dump_json().encode(), []) for one in decided])


@contextmanager
def trickling(address: str, topic: str, decided: Iterable[Decision]) -> Iterator[None]:
    """Send decisions one after the other meanwhile; leaving waits until all are sent."""

    producer = Producer({"bootstrap.servers": address, "partitioner": "murmur2_random", "enable.idempotence": True})

    def run() -> None:
        for one in decided:
            producer.produce(topic, one.model_dump_json().encode(), one.id.encode())
            assert producer.flush(60) == 0

    sender = threading.Thread(target=run)
    sender.start()
    yield
    sender.join()


def replayed(address: str, topic: str) -> dict[str, Exemplar | None]:
    """What follows from the log alone, by content: every content that anything was decided about."""
    histories: dict[str, History] = {}
    for message in consume_all(address, topic):
        event = decode_decision(record_of(message))
        if isinstance(event, Tombstone):
            histories[event.key] = History()
        else:
            histories[event.id] = after(histories.get(event.id, History()), event, LIMIT)
    return {content: exemplar(content, history) for content, history in histories.items()}


def last(address: str, topic: str) -> dict[str, Exemplar | None]:
    """The last exemplar of people of each content."""
    found: dict[str, Exemplar | None] = {}
    for message in consume_all(address, topic):
        event = decode_exemplar(record_of(message))
        key = event.key.removesuffix("/people") if isinstance(event, Tombstone) else event.id
        found[key] = None if isinstance(event, Tombstone) else event
    return found


def origins(address: str, topic: str) -> Counter[Origin]:
    return Counter(read_source(record_of(message).headers) for message in consume_all(address, topic))


def each_once(address: str, log: str, state: str) -> None:
    """Every decision that is no repetition changed the state once: its offset stands in one record's headers."""
    seen: set[tuple[str, str]] = set()
    expected = set[Origin]()
    for message in consume_all(address, log):
        event = decode_decision(record_of(message))
        assert isinstance(event, Decision)
        if (event.id, event.decision) not in seen:
            expected.add(Origin(log, message.partition() or 0, message.offset() or 0))
        seen.add((event.id, event.decision))
    found = origins(address, state)
    assert set(found) == expected, f"lost {len(expected - set(found))}, invented {len(set(found) - expected)}"
    assert max(found.values()) == 1


def ids(values: Sequence[Message]) -> list[str]:
    """The ids of all decisions in the last state of each content."""
    states = {message.key(): message.value() for message in values}
    return [one["decision"] for value in states.values() if value for one in json.loads(value)["decisions"]]


def record(decided: Decision) -> Record:
    return Record(decided.id.encode(), decided.model_dump_json().encode())
