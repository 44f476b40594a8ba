"""Requests to one model on all servers behind an address: balanced, bounded in number, and retried."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from tagbus.stream import telemetry
from tagbus.stream.config import EncoderSettings, RetrySettings
from tagbus.stream.encoder.balance import Balancer, Resolve, resolve
from tagbus.stream.encoder.endpoint import Busy, Down, Endpoint, Failed, Late, Tensors, Wanted
from tagbus.stream.errors import DependencyDown
from tagbus.stream.retry import backoff

# Attempts of a request that the model fails on.
ATTEMPTS: Final = 3
# Between attempts: far enough apart that Triton does not merge them with the same request of another worker.
APART: Final = RetrySettings(first_seconds=0.2, cap_seconds=2.0)

# Checks that a server has the model. Raises ReleaseMismatch if it has another one, and what `Endpoint.infer` raises.
Prove = Callable[[Endpoint], Awaitable[None]]

Job = TypeVar("Job")


class TritonClient:
    """The configured model on the servers at the configured address. Call `open` first."""

    def __init__(
        self, settings: EncoderSettings, wanted: Wanted, prove: Prove, setting: str, find: Resolve = resolve
    ) -> None:
        """`setting` is where the address comes from, for errors."""
        self._model = settings.model
        self._seconds = settings.deadline_seconds
        self._most = settings.in_flight
        self._prove = prove
        self._slots = asyncio.Semaphore(settings.in_flight)
        self._budget = Budget()
        self._balancer = Balancer(
            settings.address,
            setting,
            lambda place, host: Endpoint(place, host, settings, wanted),
            self._proved,
            find,
            telemetry.TRITON_SERVERS.labels(model=settings.model),
        )

    async def open(self) -> None:
        """Returns once every server has been tried and one has the model; otherwise the client is closed.

        Raises ReleaseMismatch if a server has another model, DependencyDown if none answers within the deadline,
        UserError for an invalid address or TLS file.
        """
        try:
            await self._balancer.open(self._now() + self._seconds)
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def close(self) -> None:
        """Close the channels. No call may be in flight."""
        await self._balancer.close()

    async def ask(self, feed: Tensors) -> Tensors:
        """One request, retried within the deadline where that may help; waiting for a slot does not count.

        Raises Failed immediately if the model fails: the caller knows whether to retry. Raises DependencyDown if no
        server answers within the deadline or all are too busy, ReleaseMismatch if another model answers.
        """
        async with self._slots:
            return await self._try(feed, self._now() + self._seconds)

    async def ask_again(self, feed: Tensors) -> Tensors:
        """As `ask`, for inputs that cannot be at fault, such as bounded numbers: a request that the model fails on is
        retried, because Triton may have merged it with another worker's.

        Raises DependencyDown if the model fails on it three times.
        """
        delays = backoff(APART)
        for _ in range(ATTEMPTS - 1):
            with suppress(Failed):
                return await self.ask(feed)
            await self._wait(next(delays))
        try:
            return await self.ask(feed)
        except Failed as error:
            raise DependencyDown(str(error)) from None

    async def each(self, jobs: Sequence[Job], run: Callable[[Job], Awaitable[None]]) -> None:
        """Run every job, as many at a time as there are slots: a single call fills them, several share them.

        If one raises, the others are cancelled and awaited.
        """
        left = iter(jobs)

        async def lane() -> None:
            for job in left:
                await run(job)

        lanes = [asyncio.create_task(lane()) for _ in range(min(self._most, len(jobs)))]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _try(self, feed: Tensors, ends: float) -> Tensors:
        delays = backoff(APART)
        while True:
            delay = 0.0
            async with self._balancer.lease(ends) as server:
                sent = self._now()
                try:
                    # An attempt has half of the deadline, which leaves time for another server.
                    found = await server.endpoint.infer(feed, min(self._seconds / 2, max(ends - sent, 0.001)))
                except Failed:
                    self._count("failed")
                    raise
                except (Down, Late, Busy) as error:
                    problem = str(error)
                    if isinstance(error, Busy):
                        server.heard = self._now()
                    # A server that has answered meanwhile, even with a refusal, is overloaded rather than down; marking
                    # it down would add the golden questions to its load.
                    busy = isinstance(error, Busy) or (isinstance(error, Late) and server.heard > sent)
                    if busy:
                        delay = next(delays)
                    else:
                        server.fall(problem)
                else:
                    server.heard = self._now()
                    self._count("answered")
                    self._budget.earn()
                    return found
            self._count("busy" if busy else "down")
            # While none is up the lease waits: a server that is down is asked once per request at most.
            if self._now() + delay >= ends or (busy and not self._budget.spend()):
                raise DependencyDown(problem)
            await self._wait(delay)

    async def _wait(self, seconds: float) -> None:
        """Wait before a retry, and count it."""
        telemetry.RETRIES.labels(step="triton").inc()
        await asyncio.sleep(seconds)

    def _count(self, outcome: str) -> None:
        telemetry.TRITON_REQUESTS.labels(model=self._model, outcome=outcome).inc()

    async def _proved(self, endpoint: Endpoint) -> None:
        try:
            await self._prove(endpoint)
        except (Down, Late, Busy, Failed) as error:
            raise DependencyDown(str(error)) from None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class Budget:
    """How many requests may be retried because of a full queue: one per twenty answers, and one to begin with.

    So retries stay well below a tenth of the load when servers are overloaded.
    Source: gRFC A6, "Throttling Retry Attempts and Hedged RPCs".
    """

    MOST: Final = 10.0
    RATIO: Final = 0.05

    def __init__(self) -> None:
        self._tokens = 1.0

    def earn(self) -> None:
        """Count an answered request."""
        self._tokens = min(self.MOST, self._tokens + self.RATIO)

    def spend(self) -> bool:
        """Whether a request may be retried; counts the retry."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
