"""A batch in which one content cannot be tagged: that one fails, its neighbours go on."""

from collections.abc import Awaitable, Callable, Sequence

from tagbus.stream.errors import Poison
from tagbus.stream.tagger.work import Work


async def by_halves(works: Sequence[Work], run: Callable[[Sequence[Work]], Awaitable[None]]) -> None:
    """Run a step on all contents; where it raises Poison, on each half of them. One that raises it alone fails by it.

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
