"""A thread pool that runs the earliest due step first."""

import asyncio
import threading
from contextlib import suppress

import pytest

from tagbus.stream.turns import Turns


class Held:
    """One thread, held in a step until it is released."""

    def __init__(self) -> None:
        self.turns = Turns(1, "held")
        self._begun, self._go = threading.Event(), threading.Event()

    async def __aenter__(self) -> Turns:
        self._held = asyncio.create_task(self.turns.run(0.0, self._hold))
        assert await asyncio.to_thread(self._begun.wait, 120)
        return self.turns

    async def let_go(self) -> None:
        self._go.set()
        await self._held

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        self.turns.close()

    def _hold(self) -> None:
        self._begun.set()
        assert self._go.wait(120)


async def test_the_earliest_due_step_runs_first_and_ties_in_order_of_arrival() -> None:
    order: list[str] = []
    held = Held()
    async with held as turns:
        asked = [("b1", 2.0), ("c", 3.0), ("b2", 2.0), ("a", 1.0)]
        tasks = [asyncio.create_task(turns.run(due, order.append, name)) for name, due in asked]
        await asyncio.sleep(0)
        await held.let_go()
        await asyncio.gather(*tasks)
    assert order == ["a", "b1", "b2", "c"]


async def test_an_error_is_its_callers_alone() -> None:
    turns = Turns(1, "two")
    wrong, right = await asyncio.gather(
        turns.run(0.0, int, "no number"), turns.run(0.0, int, "7"), return_exceptions=True
    )
    assert isinstance(wrong, ValueError)
    assert right == 7
    turns.close()


async def test_an_abandoned_step_does_not_run() -> None:
    order: list[str] = []
    held = Held()
    async with held as turns:
        tasks = [asyncio.create_task(turns.run(0.0, order.append, name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        tasks[0].cancel()
        # Cancelled when it has run once more: the thread must not be released before.
        with suppress(asyncio.CancelledError):
            await tasks[0]
        await held.let_go()
        await tasks[1]
    assert order == ["b"]


async def test_a_close_finishes_queued_steps_and_accepts_no_more() -> None:
    order: list[str] = []
    held = Held()
    async with held as turns:
        task = asyncio.create_task(turns.run(0.0, order.append, "a"))
        await asyncio.sleep(0)
        turns.close(wait=False)
        with pytest.raises(RuntimeError):
            await turns.run(0.0, order.append, "b")
        await held.let_go()
        await task
    assert order == ["a"]
