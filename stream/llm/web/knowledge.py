"""Web knowledge for contents: searched by title, cached, bounded in time, and never a reason to lose a content.

LLM4Tag (arXiv 2502.13481, section 3.2.2) adds knowledge from a web search to its own. The query is the title, or the
beginning of the text of a content without one, and the metadata that the settings list.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from tagbus.stream.config import WebSettings
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Overloaded, Retryable, Withheld
from tagbus.stream.llm.base import Asked
from tagbus.stream.llm.prompts.fence import seen
from tagbus.stream.llm.spending.breaker import Breaker
from tagbus.stream.llm.spending.rate import Rate
from tagbus.stream.llm.web.endpoint import Endpoint, Result, Unusable
from tagbus.stream.recall.knowledge import Segment
from tagbus.stream.telemetry import WEB_BREAKER, WEB_SEARCHES

log = logging.getLogger(__name__)

# The limit of characters of a query, metadata included.
QUERY: Final = 300
FAILURES: Final = 5
PAUSE_SECONDS: Final = 10.0
# No search starts with less time left.
_LEAST_SECONDS: Final = 0.05

Results = tuple[Result, ...]


class WebKnowledge:
    """Adds web knowledge to questions. One event loop."""

    def __init__(self, settings: WebSettings, endpoint: Endpoint, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._clock = clock
        self._slots = asyncio.Semaphore(settings.in_flight)
        self._rate = Rate(lambda: settings.requests_per_minute)
        self._breaker = Breaker(FAILURES, PAUSE_SECONDS, server="the search endpoint", gauge=WEB_BREAKER)
        # By query: the expiry, and the results. The oldest first.
        self._kept: OrderedDict[str, tuple[float, Results]] = OrderedDict()

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    async def add(self, asked: Sequence[Asked]) -> list[Asked]:
        """The same with web knowledge after memory's. A failed search adds nothing; nothing is raised."""
        queries = [query_of(one.content, self._settings.metadata) for one in asked]
        deadlines: dict[str, float] = {}
        for query, one in zip(queries, asked, strict=True):
            own = time.monotonic() + self._settings.seconds
            deadline = own if one.deadline is None else min(own, one.deadline)
            deadlines[query] = max(deadline, deadlines.get(query, deadline))
        found = await asyncio.gather(*(self._found(query, deadline) for query, deadline in deadlines.items()))
        results = dict(zip(deadlines, found, strict=True))
        return [
            replace(one, knowledge=(*one.knowledge, *_segments(results[query])))
            for one, query in zip(asked, queries, strict=True)
        ]

    async def _found(self, query: str, deadline: float) -> Results:
        if not query:
            return ()
        if (kept := self._cached(query)) is not None:
            WEB_SEARCHES.labels("cached").inc()
            return kept
        try:
            results = await self._search(query, deadline)
        except Unusable as error:
            WEB_SEARCHES.labels(error.reason).inc()
            log.warning("web knowledge: %s: %s", self._endpoint.host, error)
            return ()
        except Withheld as error:
            WEB_SEARCHES.labels(error.reason).inc()
            return ()
        except Retryable as error:
            WEB_SEARCHES.labels("timeout" if isinstance(error.__cause__, TimeoutError) else "failed").inc()
            log.warning("web knowledge: %s", error)
            return ()
        WEB_SEARCHES.labels("found" if results else "nothing").inc()
        self._keep(query, results)
        return results

    async def _search(self, query: str, deadline: float) -> Results:
        """Raises as `Endpoint.search` does, and Withheld for a search that is not sent."""
        try:
            async with asyncio.timeout_at(_loop_time(deadline)):
                await self._slots.acquire()
        except TimeoutError:
            raise Withheld("deadline", "the deadline passed before a search could be sent") from None
        try:
            trial = self._breaker.enter()
            try:
                if wait := self._rate.turn(deadline):
                    await asyncio.sleep(wait)
                seconds = deadline - time.monotonic()
                if seconds < _LEAST_SECONDS:
                    raise Withheld("deadline", "the deadline passed before a search could be sent")
                results = await self._endpoint.search(query, seconds)
            except Withheld:
                self._unknown(trial)
                raise
            except Retryable as error:
                # An endpoint that asks to retry later is not failing.
                if isinstance(error, Overloaded) and error.retry_after is not None:
                    self._breaker.pause(error.retry_after)
                else:
                    self._breaker.failed()
                raise
            except BaseException:
                self._unknown(trial)
                raise
            self._breaker.succeeded()
            return results
        finally:
            self._slots.release()

    def _unknown(self, trial: object) -> None:
        if trial:
            self._breaker.unknown()

    def _cached(self, query: str) -> Results | None:
        until, results = self._kept.get(query, (0.0, ()))
        return results if until > self._clock() else None

    def _keep(self, query: str, results: Results) -> None:
        if self._settings.cache:
            self._kept.pop(query, None)
            self._kept[query] = (self._clock() + self._settings.cache_seconds, results)
            if len(self._kept) > self._settings.cache:
                self._kept.popitem(last=False)


def query_of(content: Content, metadata: Sequence[str]) -> str:
    """The query: one line without control characters, at most QUERY characters."""
    listed = [content.metadata[name] for name in metadata if name in content.metadata]
    words = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in listed]
    title = seen(content.title, QUERY) or seen(content.text, QUERY)
    return seen(" ".join([title, *(one[:QUERY] for one in words)]), QUERY)


def _segments(results: Results) -> tuple[Segment, ...]:
    return tuple(Segment(f"web-{place}", "web", one.title, one.text, 0.0) for place, one in enumerate(results, start=1))


def _loop_time(deadline: float) -> float:
    """A time on time.monotonic() as the event loop counts it."""
    return asyncio.get_running_loop().time() + deadline - time.monotonic()
