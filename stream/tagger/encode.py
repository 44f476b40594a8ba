"""Stage `encode`: one vector per text."""

from collections.abc import Sequence

from tagbus.stream import telemetry
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.errors import Fatal, FieldError, Retryable, Untaggable, shorten
from tagbus.stream.tagger.work import Work


class Encode:
    """Encode a batch with the release's encoder. A failing batch is bisected, so only a text that fails on its own is
    rejected."""

    name = "encode"

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        try:
            vectors = await self._encoder.encode([work.text for work in works])
        except (Retryable, Fatal, MemoryError):
            raise
        except Exception as error:
            if len(works) <= 1:
                for work in works:
                    work.fail(_untaggable(work.text, error))
                return
        else:
            telemetry.ENCODED.inc(len(works))
            for work, vector in zip(works, vectors, strict=True):
                work.vector = vector
            return
        middle = len(works) // 2
        await self.run(works[:middle])
        await self.run(works[middle:])


def _untaggable(text: str, error: Exception) -> Untaggable:
    wrong = FieldError("text", shorten(text), f"a text that the encoder takes ({type(error).__name__}: {error})")
    return Untaggable("encode", (wrong,))
