"""Threads that take what is due first: a short call overtakes long ones that came before it.

A worker tags several batches at once and takes in a new tag between them. In the order of arrival the tag would wait
for all that the batches have queued, and the batches would all end at the same time, the first as late as the last.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """A pool of threads with a queue in the order of what is due."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._lock = threading.Lock()
        # When each step is due, its number, what waits for it, and the step itself.
        self._waiting: list[tuple[float, int, Future[None], Callable[[], None]]] = []
        self._numbers = itertools.count()

    async def run(self, due: float, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `step(*args)`, after all that is due before; what is due at the same time runs as it came.

        Raises RuntimeError after close().
        """
        results: list[T] = []
        done: Future[None] = Future()
        entry = (due, next(self._numbers), done, lambda: results.append(step(*args, **kwargs)))
        with self._lock:
            # One task a step: whichever thread runs it takes the step that is due first.
            self._pool.submit(self._next)
            heapq.heappush(self._waiting, entry)
        await asyncio.wrap_future(done)
        return results[0]

    def close(self, *, wait: bool = True) -> None:
        """Let the threads end once what was asked of them is done, and wait for it."""
        self._pool.shutdown(wait=wait)

    def _next(self) -> None:
        with self._lock:
            _, _, done, step = heapq.heappop(self._waiting)
        if not done.set_running_or_notify_cancel():
            return
        try:
            step()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)
