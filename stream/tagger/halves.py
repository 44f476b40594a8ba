"""Bisect a batch, so that a content that cannot be tagged fails alone."""

from collections.abc import Awaitable, Callable, Sequence

from tagbus.stream.errors import Poison
from tagbus.stream.tagger.work import Work


async def by_halves(works: Sequence[Work], run: Callable[[Sequence[Work]], Awaitable[None]]) -> None:
    """Run a step on the batch; if it raises Poison, on each half. A content that raises it on its own fails.

    Raises whatever else the step raises.
    """
    try:
        await run(works)
    except Poison as error:
        if len(works) == 1:
            works[0].fail(error)
            return
    else:
        return
    middle = len(works) // 2
    await by_halves(works[:middle], run)
    await by_halves(works[middle:], run)
