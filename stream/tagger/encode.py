"""Stage `encode`: one vector per text."""

from collections.abc import Sequence

from tagbus.stream import telemetry
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.errors import Fatal, FieldError, Retryable, Untaggable, shorten
from tagbus.stream.tagger.halves import by_halves
from tagbus.stream.tagger.work import Work


class Encode:
    """Encode a batch with the release's encoder. A failing batch is bisected, so only a text that fails on its own is
    rejected."""

    name = "encode"

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    async def run(self, works: Sequence[Work]) -> None:
        """See `Stage`."""
        await by_halves(works, self._encode)

    async def _encode(self, works: Sequence[Work]) -> None:
        """Raises Untaggable if the encoder fails; the error names a content that is alone."""
        try:
            vectors = await self._encoder.encode([work.text for work in works])
        except (Retryable, Fatal, MemoryError):
            raise
        except Exception as error:
            raise _untaggable(works[0].text, error) from error
        telemetry.ENCODED.inc(len(works))
        for work, vector in zip(works, vectors, strict=True):
            work.vector = vector


def _untaggable(text: str, error: Exception) -> Untaggable:
    wrong = FieldError("text", shorten(text), f"a text that the encoder takes ({type(error).__name__}: {error})")
    return Untaggable("encode", (wrong,))
