"""Stage `prepare`: the text to encode and search."""

from collections.abc import Sequence

from tagbus.stream.encoder.release import content_text
from tagbus.stream.tagger.work import Work


class Prepare:
    """Joins title and text."""

    name = "prepare"

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        for work in works:
            work.text = content_text(work.content.title, work.content.text)
