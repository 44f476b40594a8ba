"""100,000 mutated events: no crash, no loss, and dead letters equal to their input byte for byte.

    python bench/fuzz.py [--out FILE] [--seed N] [--events 100000] [--kafka 20000] [--protocol classic consumer]

All events go through decoding and classification in this process; the first ones also go through a worker on Apache
Kafka with a tagger that does nothing, once with each group protocol. Exits with code 1 on any fault. The same seed
gives the same events.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from confluent_kafka import Producer

from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.processor import RecordOutcome
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import Record
from tagbus.stream.kafka.message import record_of
from tagbus.stream.local.apache import ApacheKafka
from tests.bus.fuzzing import complaints, processed, same
from tests.bus.harness import TOPICS, origin, running, settings
from tests.bus.mutants import Mutants
from tests.bus.taggers import Trivial
from tests.kafka.chaos.check import Watch
from tests.support import consume_all, create_topics

RESULTS = Path(__file__).parent / "results"
BATCH = 200
PROTOCOLS = ("classic", "consumer")
VALUE_BYTES = 5_000_000
OUT_SECONDS = 300.0
# Most events are poison here; the service would stop at its default share.
ANY_SHARE = {"poison_share": 1}


@dataclass(slots=True)
class Found:
    """Outcomes of the events. `crashes`: no outcome; `changed`: an outcome that does not match the event."""

    events: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    examples: list[str] = field(default_factory=list)

    def good(self) -> bool:
        return not (self.crashes or self.lost or self.doubled or self.changed)


@dataclass(slots=True)
class Sent:
    """How many events the broker has confirmed, for the watch."""

    confirmed: int = 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz.json")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kafka", type=int, default=20_000, help="how many also go through Kafka")
    parser.add_argument("--protocol", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="group.protocol")
    return parser.parse_args()


def in_process(seed: int, count: int) -> Found:
    """Run the events through decoding and classification, in batches."""
    given = Settings.model_validate({"triage": ANY_SHARE})
    processor, mutants, found = TagProcessor(given, Trivial()), Mutants(random.Random(seed)), Found(count)  # noqa: S311
    for first in range(0, count, BATCH):
        records = [mutants.next() for _ in range(min(BATCH, count - first))]
        pairs = zip(records, outcomes(processor, records, first, found), strict=True)
        for offset, (record, outcome) in enumerate(pairs, first):
            if outcome is None:
                continue
            found.outcomes[outcome.kind] += 1
            for complaint in complaints(given, record, offset, outcome):
                found.changed += 1
                found.examples.append(f"{complaint}: {shown(record)}")
    found.lost = count - found.outcomes.total() - found.crashes
    return found


def outcomes(
    processor: TagProcessor, records: Sequence[Record], first: int, found: Found
) -> list[RecordOutcome | None]:
    """An outcome per record, None where it crashes. A batch that crashes is repeated one record at a time."""
    try:
        return list(processed(processor, records, first))
    except Exception as error:
        if len(records) == 1:
            found.crashes += 1
            found.examples.append(f"{type(error).__name__}: {error}: {shown(records[0])}")
            return [None]
        return [outcomes(processor, [record], first + n, found)[0] for n, record in enumerate(records)]


def through_kafka(seed: int, count: int, protocol: str) -> Found:
    """Run the first events of the same seed through a worker with exactly-once delivery."""
    with ApacheKafka() as broker:
        names = {name: name for name in TOPICS}
        wide = (4, {"max.message.bytes": str(VALUE_BYTES)})
        create_topics(broker.address, {**dict.fromkeys(names, 4), "content": wide})
        given = settings(broker.address, names, triage=ANY_SHARE, kafka={"group_protocol": protocol})
        sent = Sent()
        watch = Watch(broker.address, names, sent)
        watch.start()
        with running(given, Trivial()) as run:
            run.until_ready()
            produce(broker.address, Mutants(random.Random(seed)), count)  # noqa: S311
            sent.confirmed = count
            end = time.monotonic() + OUT_SECONDS
            while watch.out < count and not run.ended() and time.monotonic() < end:
                time.sleep(0.1)
        watch.stop()
        return compared(broker.address, names)


def produce(address: str, mutants: Mutants, count: int) -> None:
    producer = Producer({"bootstrap.servers": address, "message.max.bytes": VALUE_BYTES, "enable.idempotence": True})
    for _ in range(count):
        record = mutants.next()
        while True:
            try:
                producer.produce("content", record.value, record.key, headers=list(record.headers))
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0, "the broker did not accept the events"


def compared(address: str, names: dict[str, str]) -> Found:
    """Compare the output with the records on `content`."""
    given = {(m.partition() or 0, m.offset() or 0): record_of(m) for m in consume_all(address, names["content"])}
    results = consume_all(address, names["tagged"])
    letters = consume_all(address, names["dead_letters"])
    counts = Counter(origin(message) for message in [*results, *letters])
    found = Found(len(given))
    found.outcomes.update("withdrawn" if message.value() is None else "tagged" for message in results)
    found.outcomes["dead_lettered"] = len(letters)
    found.lost = len(set(given) - set(counts))
    found.doubled = counts.total() - len(counts)
    for letter in letters:
        record = given[origin(letter)]
        if not same(record, record_of(letter)):
            found.changed += 1
            found.examples.append(f"the dead letter differs from its input: {shown(record)}")
    return found


def shown(record: Record) -> str:
    """A record, truncated; the seed reproduces it in full."""
    return f"key={(record.key or b'')[:40]!r} value={(record.value or b'')[:300]!r} headers={record.headers[:6]!r}"[
        :800
    ]


def main() -> int:
    given = arguments()
    print(f"seed {given.seed}", flush=True)
    start = time.monotonic()
    here = in_process(given.seed, given.events)
    here_seconds = time.monotonic() - start
    print(f"in the process, {here_seconds:.0f} s: {dict(here.outcomes)}, crashes {here.crashes}", flush=True)
    there = {protocol: through_kafka(given.seed, given.kafka, protocol) for protocol in given.protocol}
    seconds = time.monotonic() - start
    every = [here, *there.values()]
    for protocol, one in there.items():
        print(f"through Kafka, {protocol}: {dict(one.outcomes)}, lost {one.lost}, doubled {one.doubled}", flush=True)
    summary = {
        "events": here.events,
        **{outcome: here.outcomes[outcome] for outcome in ("tagged", "dead_lettered", "withdrawn")},
        **{name: sum(getattr(one, name) for one in every) for name in ("crashes", "lost", "changed")},
        "seconds": round(seconds, 1),
        "seed": given.seed,
        "kafka": {
            protocol: {"events": one.events, **one.outcomes, "lost": one.lost, "duplicated": one.doubled}
            for protocol, one in there.items()
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=2))
    for example in [example for one in every for example in one.examples][:10]:
        print(f"WRONG: {example}")
    whole = all(one.events == given.kafka for one in there.values())
    return 0 if whole and all(one.good() for one in every) else 1


if __name__ == "__main__":
    sys.exit(main())
