"""A batch at the tagger: contents that are set aside, waits, and the number of calls. No Kafka here."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from math import ceil, log2

import pytest
from hypothesis import given, strategies

from tagbus.stream.bus.process.isolation import CANARY, BatchTagger, PoisonIsolation, Rejected, Tagged
from tagbus.stream.config import RetrySettings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.errors import ReleaseMismatch, TagbusError, UserError
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.tagger import Delayed, Failure, Outcome
from tests.bus.harness import events, outcome, running, settings, until_all_out
from tests.bus.taggers import Allergic, Down, Picky, Trivial
from tests.support import produce

QUICK = RetrySettings(first_seconds=0.0001, cap_seconds=0.0002)


def contents(count: int) -> list[Content]:
    return [Content(id=f"c{number}", text="a secret text") for number in range(count)]


def run(tagger: BatchTagger, given: Sequence[Content], stall: Callable[[bool], None] = lambda _: None) -> list[Tagged]:
    return list(asyncio.run(PoisonIsolation(tagger, QUICK, stall).run(given)))


def aside(outcomes: Sequence[Tagged]) -> set[int]:
    return {index for index, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)}


class Counted(Trivial):
    """Raises for batches with a content in `bad`, and for all batches in the calls from `first` to `last`."""

    def __init__(self, bad: set[str], first: int = 0, last: int = 0) -> None:
        super().__init__()
        self.bad = bad
        self.out = range(first, last)
        self.calls = 0

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        self.calls += 1
        if self.calls in self.out or any(content.id in self.bad for content in contents):
            raise ZeroDivisionError(f"cannot divide {contents[0].text}")
        return await super().tag(contents)


sizes_and_bad = strategies.integers(1, 70).flatmap(
    lambda size: strategies.tuples(strategies.just(size), strategies.sets(strategies.integers(0, size - 1)))
)


@given(sizes_and_bad)
def test_exactly_the_bad_are_set_aside_by_few_calls(case: tuple[int, set[int]]) -> None:
    size, bad = case
    tagger = Counted({f"c{number}" for number in bad})
    assert aside(run(tagger, contents(size))) == bad
    assert tagger.calls <= len(bad) * (2 * ceil(log2(size)) + 1) + 4


def test_one_bad_content_of_500_takes_a_call_for_each_halving() -> None:
    tagger = Counted({"c123"})
    outcomes = run(tagger, contents(500))
    assert aside(outcomes) == {123}
    assert tagger.calls <= 2 * 9 + 1 + 4


@given(sizes_and_bad, strategies.integers(1, 60), strategies.integers(0, 60))
def test_an_outage_that_comes_at_any_moment_sets_no_good_content_aside(
    case: tuple[int, set[int]], first: int, length: int
) -> None:
    size, bad = case
    tagger = Counted({f"c{number}" for number in bad}, first, first + length)
    assert aside(run(tagger, contents(size))) == bad


def test_a_failure_that_the_tagger_returns_is_confirmed_too() -> None:
    # Given a tagger that refuses every content for a while, the canary among them
    class Refusing(Picky):
        def __init__(self) -> None:
            super().__init__(lambda _: self.calls < 10)
            self.calls = 0

        async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
            self.calls += 1
            return await super().tag(contents)

    # Then the fault is not in the contents
    stalls: list[bool] = []
    assert aside(run(Refusing(), contents(3), stalls.append)) == set()
    assert (stalls[0], stalls[-1]) == (True, False)


def test_what_fails_without_neighbours_is_set_aside_where_the_canary_passes() -> None:
    assert aside(run(Allergic(lambda content: content.id != CANARY.id), contents(2))) == {0, 1}
    assert aside(run(Picky(lambda content: content.id != CANARY.id), contents(1))) == {0}


def test_the_calls_that_a_content_failed_in_are_counted() -> None:
    (outcome,) = run(Counted({"c0"}), contents(1))
    assert isinstance(outcome, Rejected)
    assert outcome.attempts == 2


def test_a_tagger_that_fails_for_everything_is_waited_for() -> None:
    tagger, stalls = Allergic(lambda _: not mended), list[bool]()
    mended = False

    async def scenario() -> Sequence[Tagged]:
        nonlocal mended
        task = asyncio.create_task(PoisonIsolation(tagger, QUICK, stalls.append).run(contents(2)))
        while len(stalls) < 3:
            await asyncio.sleep(0)
        mended = True
        return await task

    assert aside(asyncio.run(scenario())) == set()
    assert (stalls[0], stalls[-1]) == (True, False)
    assert set(stalls[:-1]) == {True}, "between two tries it still waits"


def test_a_batch_waits_for_a_dependency_and_keeps_finished_outcomes() -> None:
    tagger, stalls = Down(5), list[bool]()
    assert aside(run(tagger, contents(1), stalls.append)) == set()
    assert (tagger.calls, stalls) == (6, [True] * 5 + [False])


@pytest.mark.parametrize(
    "error", [ReleaseMismatch("another release made these"), UserError("the store wants another key")], ids=repr
)
def test_what_no_content_is_to_blame_for_is_passed_on_and_not_waited_for(error: TagbusError) -> None:
    class Broken(Trivial):
        async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
            raise error

    for count in (1, 8):
        with pytest.raises(type(error), match=str(error)):
            run(Broken(), contents(count))


def test_a_batch_that_is_too_large_for_memory_is_halved() -> None:
    class Small(Trivial):
        async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
            if len(contents) > 3:
                raise MemoryError
            return await super().tag(contents)

    assert aside(run(Small(), contents(20))) == set()


def test_a_tagger_that_returns_too_few_loses_nothing() -> None:
    class Short(Trivial):
        async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
            return (await super().tag(contents))[:1]

    outcomes = run(Short(), contents(3))
    assert aside(outcomes) == set()
    assert [outcome.id for outcome in outcomes if isinstance(outcome, TaggedContent)] == ["c0", "c1", "c2"]


def test_the_log_quotes_no_content(caplog: pytest.LogCaptureFixture) -> None:
    run(Counted({"c1"}), contents(2))
    assert "failed" in caplog.text
    assert "secret" not in caplog.text


class Delaying(Trivial):
    """Delays contents by the next seconds in `delays` for their id, one per call. Raises for those in `bad`."""

    def __init__(self, delays: dict[str, list[float]], bad: Collection[str] = ()) -> None:
        super().__init__()
        self.delays = delays
        self.bad = bad
        self.times: dict[str, list[float]] = {}

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[Outcome]:
        for content in contents:
            self.times.setdefault(content.id, []).append(time.monotonic())
        late = {content.id: left.pop(0) for content in contents if (left := self.delays.get(content.id))}
        if any(content.id in self.bad and content.id not in late for content in contents):
            raise ZeroDivisionError("cannot divide")
        tagged = await super().tag([content for content in contents if content.id not in late])
        given = iter(tagged)
        return [Delayed(one.id, late[one.id], "rate limit") if one.id in late else next(given) for one in contents]


class TestDelayed:
    def test_only_delayed_contents_are_tagged_again_each_after_its_time(self) -> None:
        tagger = Delaying({"c1": [0.05], "c3": [0.2], "c4": [0.05, 0.05]})
        outcomes = run(tagger, contents(6))
        assert [outcome.id for outcome in outcomes if isinstance(outcome, TaggedContent)] == [f"c{n}" for n in range(6)]
        assert {name: len(times) for name, times in tagger.times.items()} == {
            "c0": 1,
            "c2": 1,
            "c5": 1,
            "c1": 2,
            "c3": 2,
            "c4": 3,
        }
        waits = {name: [b - a for a, b in pairwise(times)] for name, times in tagger.times.items()}
        assert waits["c1"][0] >= 0.05
        assert waits["c3"][0] >= 0.2
        assert min(waits["c4"]) >= 0.05
        # c1 did not wait for c3.
        assert waits["c1"][0] < waits["c3"][0]

    def test_it_is_no_outage(self) -> None:
        stalls: list[bool] = []
        run(Delaying({"c1": [0.01]}), contents(3), stalls.append)
        assert stalls == []

    def test_one_that_fails_afterwards_is_rejected_alone_and_its_neighbours_are_not_tagged_again(self) -> None:
        tagger = Delaying({"c1": [0.01], "c2": [0.01]}, bad={"c1"})
        outcomes = run(tagger, contents(4))
        assert aside(outcomes) == {1}
        assert (len(tagger.times["c0"]), len(tagger.times["c3"])) == (1, 1)

    def test_a_batch_that_fails_is_split_although_contents_of_it_are_delayed(self) -> None:
        tagger = Delaying({"c1": [0.01] * 3}, bad={"c2"})
        assert aside(run(tagger, contents(4))) == {2}

    def test_a_delayed_canary_is_asked_again(self) -> None:
        tagger = Delaying({CANARY.id: [0.01, 0.01]}, bad={"c0"})
        assert aside(run(tagger, contents(2))) == {0}

    def test_other_partitions_do_not_wait_for_it(self, mock_kafka: MockCluster, mock_topics: dict[str, str]) -> None:
        produce(mock_kafka.address, "content", events(10, "slow"), 0)
        produce(mock_kafka.address, "content", events(10, "fast"), 1)
        given = settings(mock_kafka.address, mock_topics, kafka={"delivery": "at_least_once"})
        tagger = Delaying({"slow3": [3600]})
        with running(given, tagger) as worker:
            until_all_out(mock_kafka.address, mock_topics, 10)
            assert {partition for partition, _ in outcome(mock_kafka.address, mock_topics)} == {1}
            assert worker.worker.ready()
            worker.worker.stop()
            worker.worker.stop()
