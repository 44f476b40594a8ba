"""The load on a server, against servers with a limited rate of queries."""

import asyncio
from collections.abc import Sequence

import pytest

from tagbus.stream.errors import DependencyDown, Overloaded
from tagbus.stream.memory.qdrant.congestion import Congestion


class Slow:
    """Answers requests sequentially, `rate` queries per tick, and gives up those that take over ten ticks.

    Time is counted, not waited for: a request's time is that of all queries before it and its own.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.waiting = 0
        self.widths: list[int] = []
        self.refused = 0

    async def ask(self, indices: Sequence[int]) -> list[int]:
        self.widths.append(len(indices))
        self.waiting += len(indices)
        late = self.waiting / self.rate > 10
        try:
            await asyncio.sleep(0)
            if late:
                self.refused += 1
                raise Overloaded("did not answer within 10 ticks")
            return [2 * index for index in indices]
        finally:
            self.waiting -= len(indices)


async def test_a_server_that_keeps_up_gets_all_queries_in_one_request() -> None:
    server = Slow(rate=1_000)
    assert await Congestion().ask(server.ask, range(128), 500) == [2 * index for index in range(128)]
    assert server.widths == [128]


async def test_a_request_has_no_more_queries_than_its_bytes_allow() -> None:
    server = Slow(rate=1_000)
    assert await Congestion().ask(server.ask, range(100), 40) == [2 * index for index in range(100)]
    assert server.widths == [40, 40, 20]


async def test_what_timed_out_is_split_and_never_asked_again_at_its_full_width() -> None:
    server = Slow(rate=3)
    assert await Congestion().ask(server.ask, range(128), 500) == [2 * index for index in range(128)]
    assert server.widths[:3] == [128, 64, 32]
    assert max(server.widths[2:]) <= 32


async def test_eight_batches_beyond_a_servers_capacity_are_all_answered() -> None:
    """64 queries fit into the deadline, 1,024 are sent: without adaptation all would time out forever."""
    server, congestion = Slow(rate=6.4), Congestion()
    answers = await asyncio.gather(*(congestion.ask(server.ask, range(128), 500) for _ in range(8)))
    assert answers == [[2 * index for index in range(128)]] * 8
    assert sum(server.widths) < 2.5 * 1_024


async def test_later_requests_begin_with_what_the_server_could_answer_and_grow() -> None:
    server, congestion = Slow(rate=3), Congestion()
    await congestion.ask(server.ask, range(128), 500)
    server.widths.clear()
    server.rate = 1_000
    for _ in range(130):
        await congestion.ask(server.ask, range(128), 500)
    assert server.widths[0] <= 64
    assert server.widths[-1] == 128


async def test_a_single_query_that_is_not_answered_in_time_is_an_outage() -> None:
    with pytest.raises(Overloaded):
        await Congestion().ask(Slow(rate=0.01).ask, range(4), 500)


async def test_any_other_failure_ends_the_search_immediately() -> None:
    async def down(_: Sequence[int]) -> list[int]:
        raise DependencyDown("no answer")

    with pytest.raises(DependencyDown, match="no answer"):
        await Congestion().ask(down, range(400), 100)


async def test_no_more_requests_are_in_flight_than_the_window_allows() -> None:
    most = in_flight = 0

    async def ask(indices: Sequence[int]) -> list[int]:
        nonlocal most, in_flight
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return list(indices)

    await Congestion().ask(ask, range(200), 10)
    assert 4 <= most <= 12
