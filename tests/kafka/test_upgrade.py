"""An upgrade while content flows: a worker of the last version of the contract and one of this share a group."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.bus import harness
from tests.bus.harness import Process, ending, event, exactly_once, origins, settings, until_all_out
from tests.conftest import Broker
from tests.support import Layout, consume_all, produce, wait_until

pytestmark = pytest.mark.kafka

OLD = Path(__file__).parent / "old_worker.py"
PARTITIONS = 4
Record = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]


def contents(prefix: str) -> list[Record]:
    """Of every form that any version writes, and a field of a version to come."""
    framed = b"\0\0\0\0\7" + event(f"{prefix}-framed")
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/cms"), ("ce_type", b"t")]
    return [
        *((f"{prefix}{n}".encode(), event(f"{prefix}{n}", version=n, audience={"age": [n]}), []) for n in range(40)),
        (None, event(f"{prefix}-cloud"), binary),
        (f"{prefix}-bad".encode(), event(f"{prefix}-bad", version="seven", title=5), []),
        (f"{prefix}0".encode(), None, []),
        (None, framed, []),
    ]


def held(process: Process) -> set[int]:
    """The partitions that a worker says it holds."""
    places: set[int] = set()
    for kind, named in re.findall(r"rebalance: kind=(\w+) \S+ partitions=([0-9,]*)", process.text()):
        changed = {int(number) for number in named.split(",") if number}
        places = places | changed if kind == "assigned" else places - changed
    return places


def test_an_old_and_a_new_worker_share_a_group_and_nothing_is_lost_or_doubled(
    kafka: Broker,
    topics: Callable[[Mapping[str, Layout]], dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = topics(
        {"content": PARTITIONS, "tagged": 2, "dead_letters": 1, "exemplars": 1, "feedback": 1, "versions": PARTITIONS}
    )
    given = settings(kafka.address, names)
    sent = contents("before")
    # The version of today reads what Confluent's clients frame, the old one sets it aside.
    produce(kafka.address, names["content"], sent[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(harness, "PROCESS", OLD)
        old = Process(given, tmp_path / "old.log", instance="old")
    new = Process(given, tmp_path / "new.log", instance="new")
    with ending([old, new]):
        wait_until(lambda: held(old) and held(new) and not held(old) & held(new), 120, "partitions for both")
        wait_until(lambda: len(held(old) | held(new)) == PARTITIONS, 120, "all partitions")

        shares = held(old), held(new)
        more = contents("both")
        for partition in range(PARTITIONS):
            produce(kafka.address, names["content"], more[:3], partition)
        produce(kafka.address, names["content"], more[:-1])
        until_all_out(kafka.address, names, len(sent) - 1 + PARTITIONS * 3 + len(more) - 1)
        assert old.stop() == 0
        produce(kafka.address, names["content"], contents("after"))
        until_all_out(kafka.address, names, len(sent) - 1 + PARTITIONS * 3 + len(more) - 1 + len(contents("after")))
        assert new.stop() == 0

    exactly_once(kafka.address, names)
    assert all(shares), "each had its part"
    results = origins(consume_all(kafka.address, names["tagged"]))
    assert {partition for partition, _ in results} == set(range(PARTITIONS))
    # Only what is no content is set aside: the one with wrong types, once by each producer.
    letters = consume_all(kafka.address, names["dead_letters"])
    assert {letter.key() for letter in letters} == {b"before-bad", b"both-bad", b"after-bad"}
