"""The published version: as if contents arrived one by one, in whatever order their batches end. No Kafka here."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, strategies

from tagbus.stream.bus.process.recent import Recent
from tagbus.stream.bus.process.stamps import Stamp, older, stamp, withdrawn
from tagbus.stream.bus.process.versions import PartitionVersions, Published


@dataclass(frozen=True)
class Step:
    """One record: its id, its stamp (0: none), whether the tagger fails for it, and whether it is a withdrawal."""

    id: str
    stamp: Stamp
    fails: bool = False
    withdraws: bool = False


STAMPS = strategies.builds(
    stamp, strategies.none() | strategies.integers(0, 3), strategies.none() | strategies.integers(0, 3)
)
STEPS = strategies.builds(Step, strategies.sampled_from("ab"), STAMPS, strategies.booleans()) | strategies.builds(
    lambda name, time: Step(name, stamp(None, time), withdraws=True),
    strategies.sampled_from("ab"),
    strategies.integers(0, 3),
)


# For each record whether it is published; for a withdrawal the stamp in force after it.
Outcomes = list[bool | Stamp]


def one_by_one(batches: Sequence[Sequence[Step]]) -> list[Outcomes]:
    """The expected publications."""
    published: dict[str, Stamp] = {}
    outcomes: list[Outcomes] = []
    for batch in batches:
        outcomes.append([])
        for step in batch:
            before = published.get(step.id, 0)
            if step.withdraws:
                published[step.id] = withdrawn(before, step.stamp)
                outcomes[-1].append(published[step.id])
                continue
            passes = not (older(step.stamp, before) or step.fails)
            if passes and step.stamp:
                published[step.id] = step.stamp
            outcomes[-1].append(passes)
    return outcomes


class Worker:
    """Concurrent batches of one partition at the tagger; they end on demand and commit in order."""

    def __init__(self, versions: PartitionVersions, batches: Sequence[Sequence[Step]]) -> None:
        self.versions = versions
        self.batches = batches
        self.ends = [asyncio.Event() for _ in batches]
        self.outcomes: list[Outcomes | None] = [None] * len(batches)
        self.committed = 0

    async def process(self, number: int) -> None:
        batch, claims, stale_now = self.batches[number], self.versions.open(1, number), set[int]()
        for index, step in enumerate(batch):
            if step.withdraws:
                claims.withdraw(index, step.id, step.stamp)
            elif step.stamp and claims.add(index, step.id, step.stamp):
                stale_now.add(index)
        await self.ends[number].wait()
        await claims.wait()
        found: Outcomes = []
        for index, step in enumerate(batch):
            passes = step.withdraws or (index not in stale_now and not step.fails)
            if index in claims.pending and not step.withdraws and claims.decide(index, passes=passes):
                passes = False
            found.append(passes)
        for index, step in enumerate(batch):
            if step.withdraws:
                found[index] = claims.withdrawn(index)
        claims.close()
        self.outcomes[number] = found

    def commit(self) -> None:
        while self.committed < len(self.batches) and (found := self.outcomes[self.committed]) is not None:
            steps = self.batches[self.committed]
            passed = [step.withdraws or bool(one) for step, one in zip(steps, found, strict=True)]
            self.versions.commit(1, self.committed, passed)
            self.committed += 1

    async def run(self, order: Sequence[int]) -> list[Outcomes | None]:
        tasks = [asyncio.create_task(self.process(number)) for number in range(len(self.batches))]
        for number in order:
            await asyncio.sleep(0)
            self.ends[number].set()
            for _ in range(3):
                await asyncio.sleep(0)
            self.commit()
        await asyncio.gather(*tasks)
        self.commit()
        return self.outcomes


@given(strategies.data())
def test_batches_that_end_in_any_order_are_processed_as_if_one_by_one(data: strategies.DataObject) -> None:
    batches = data.draw(strategies.lists(strategies.lists(STEPS, min_size=1, max_size=6), min_size=1, max_size=6))
    order = data.draw(strategies.permutations(range(len(batches))))
    versions = PartitionVersions(Published(1000))

    async def scenario() -> list[Outcomes | None]:
        return await Worker(versions, batches).run(order)

    assert asyncio.run(scenario()) == one_by_one(batches)
    assert not versions._waiting
    assert not versions._batches


def test_an_older_version_is_stale_an_equal_one_is_not() -> None:
    versions = PartitionVersions(Published(10))
    versions.published.put(hash("a"), stamp(5, None))
    claims = versions.open(1, 0)
    assert claims.add(0, "a", stamp(5, None)) == 0
    assert claims.add(1, "b", stamp(1, None)) == 0
    claims.decide(0, passes=True)
    assert claims.add(2, "a", stamp(4, None)) == stamp(5, None)


def test_versions_in_flight_in_an_ended_assignment_do_not_count() -> None:
    # Given a late batch of an earlier assignment, in the ledger of the new one
    versions = PartitionVersions(Published(10))
    late = versions.open(1, 0)
    late.add(0, "a", stamp(9, None))
    late.decide(0, passes=True)
    # When the first batch of the new assignment arrives
    claims = versions.open(2, 0)
    # Then an older version passes, as the newer one was never published
    assert claims.add(0, "a", stamp(1, None)) == 0
    # And a batch that arrives even later claims nothing
    assert versions.open(1, 5).add(0, "a", stamp(0, None)) == 0
    versions.commit(1, 5, [True])
    assert versions.published.get(hash("a")) == 0


@given(strategies.integers(1, 20), strategies.lists(strategies.integers(0, 30)))
def test_what_came_last_is_remembered_and_never_more_than_the_limit(limit: int, keys: list[int]) -> None:
    recent: Recent[int, int] = Recent(limit)
    for number, key in enumerate(keys):
        recent.put(key, number)
        assert len(recent) <= max(2, limit)
    last = list(dict.fromkeys(reversed(keys)))[: max(1, limit // 2)]
    for key in last[: limit // 2]:
        assert recent.get(key) == len(keys) - 1 - keys[::-1].index(key)


@given(strategies.lists(strategies.integers(0, 30)), strategies.integers(2, 20))
def test_its_limit_can_be_lowered(keys: list[int], limit: int) -> None:
    recent: Recent[int, int] = Recent(100)
    for key in keys:
        recent.put(key, key)
    recent.resize(limit)
    assert min(limit // 2, len(set(keys))) <= len(recent) <= limit
    assert {recent.get(key) for key in keys} <= {None, *keys}
    recent.put(99, 99)
    assert recent.get(99) == 99
    assert len(recent) <= limit
