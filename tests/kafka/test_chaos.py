"""A short `make chaos`: every kind of fault and change under load, on three brokers; and the check can fail."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tagbus.stream.contract.codec import dead_letter_headers, source_headers
from tagbus.stream.contract.events import DeadLetter
from tagbus.stream.local.apache import ApacheKafka
from tests.conftest import Broker
from tests.kafka.chaos.check import compare
from tests.kafka.chaos.load import KIND
from tests.kafka.chaos.run import Plan, chaos
from tests.kafka.cluster import ApacheCluster
from tests.kafka.disk import Disk
from tests.support import Layout, Record, produce

pytestmark = pytest.mark.kafka

SEED = 4


@pytest.fixture
def cluster(apache: Callable[..., ApacheKafka]) -> Iterator[ApacheCluster]:
    """Three brokers, where one can run; one of them on a disk of its own."""
    with Disk() as disk, ApacheCluster(disk=disk) as cluster:
        yield cluster


@pytest.mark.timeout(900)
def test_under_fire_every_content_comes_out_once_where_it_belongs_in_order(
    cluster: ApacheCluster, tmp_path: Path
) -> None:
    # Given workers that are killed, stopped and paused under load, a topic that is created again, partitions that are
    # added, and a broker that ends on a full disk
    plan = Plan(
        seconds=35,
        contents=5_000,
        # On a machine at a load of 8, 120 s were too few for a worker to be fenced.
        bound=360,
        seed=SEED,
        kills=1,
        rebalances=3,
        fenced=1,
        aborts=1,
        grown=1,
        recreated=1,
        disks=1,
    )
    # When it has run until enough faults have happened
    report = chaos(cluster, plan, tmp_path)
    # Then nothing is lost, doubled, misplaced, changed or out of order, and no worker ended but as it had to
    assert not report.missing
    assert not report.surprises
    assert not report.faults()


def result(place: tuple[int, int]) -> list[tuple[str, bytes]]:
    return source_headers("content", *place)


def letter(place: tuple[int, int], exception: str) -> list[tuple[str, bytes]]:
    partition, offset = place
    reason = DeadLetter(
        topic="content", partition=partition, offset=offset, exception=exception, message="m", stage="decode"
    )
    return [*dead_letter_headers(reason), *result(place)]


def test_the_check_finds_what_is_wrong(kafka: Broker, topics: Callable[[Mapping[str, Layout]], dict[str, str]]) -> None:
    # Given eight inputs, of which one is lost, one doubled, one tagged though stale, one set aside though good, one
    # changed, and two are the wrong way round
    names = topics({"content": 1, "tagged": 1, "dead_letters": 1})
    kinds = ["tagged", "tagged", "stale", "tagged", "poison", "tagged", "tagged", "withdrawn"]
    sent: list[Record] = [(b"%d" % n, b"value", [(KIND, kind.encode())]) for n, kind in enumerate(kinds)]
    produce(kafka.address, names["content"], sent)
    results: list[Record] = [
        (b"1", b"tags", result((0, 1))),
        (b"1", b"tags", result((0, 1))),
        (b"2", b"tags", result((0, 2))),
        (b"key", b"tags", result((0, 6))),
        (b"key", b"tags", result((0, 5))),
        (b"7", None, result((0, 7))),
        (b"8", b"tags", result((0, 8))),
    ]
    produce(kafka.address, names["tagged"], results)
    letters: list[Record] = [
        (b"3", b"value", letter((0, 3), "InvalidEvent")),
        (b"4", b"other", letter((0, 4), "Undecodable")),
    ]
    produce(kafka.address, names["dead_letters"], letters)
    # When it is compared
    found = compare(kafka.address, names)
    # Then each is counted
    assert (found.sent, found.tagged, found.dead_lettered) == (8, 7, 2)
    assert (found.lost, found.invented, found.duplicated) == (1, 1, 1)
    assert (found.misplaced, found.unordered, found.changed) == (2, 1, 1)
