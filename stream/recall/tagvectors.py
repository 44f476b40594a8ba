"""The tag vectors that an encoder was trained against: a classifier that uses only a content's vector.

`tagbus train biencoder --recipe top-layers` trains the encoder against all tags as free vectors and stores them next to
it; `tagbus export` includes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
from pydantic_core import from_json, to_json

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.memory.store import Vectors

FILE: Final = "tags.npz"
# A million tags with 384 dimensions are 1.5 GB.
FILE_BYTES: Final = 2_000_000_000
# Contents scored at once: 64 against 25,000 tags are 6 MB.
CONTENTS: Final = 64


@dataclass(frozen=True, slots=True)
class TagVectors:
    """Vectors float32 [t, d] and biases float32 [t] of the tags `ids`; `scale` multiplies the dot product."""

    ids: tuple[str, ...]
    vectors: Vectors
    bias: Vectors
    scale: float

    def dump(self) -> bytes:
        """Serialize tags.npz: plain arrays, no pickled objects."""
        file = BytesIO()
        ids = np.frombuffer(to_json(list(self.ids)), np.uint8)
        scale = np.float64(self.scale)
        np.savez(file, allow_pickle=False, ids=ids, vectors=self.vectors, bias=self.bias, scale=scale)
        return file.getvalue()

    @classmethod
    def parse(cls, place: Path, content: bytes) -> Self:
        """Parse the output of `dump`. Raises UserError that names the place and the expected value."""
        try:
            with np.load(BytesIO(content), allow_pickle=False) as file:
                ids = tuple(map(str, from_json(file["ids"].tobytes())))
                vectors, bias = (np.asarray(file[name], np.float32) for name in ("vectors", "bias"))
                scale = float(file["scale"])
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{place}: {shorten(str(error))}, expected a file of `tagbus train biencoder --recipe top-layers`"
            ) from None
        if vectors.ndim != 2 or not len(ids) == len(vectors) == len(bias) > 0:
            raise UserError(f"{place}: {len(ids)} tags, vectors {vectors.shape}, {len(bias)} biases, which do not fit")
        return cls(ids, vectors, bias, scale)

    def best(self, contents: Vectors, count: int) -> list[Mapping[str, float]]:
        """The `count` most probable tags of each unit vector [n, d], best first; probabilities sum to 1 over all
        tags."""
        found: list[Mapping[str, float]] = []
        for start in range(0, len(contents), CONTENTS):
            chances = self.chances(contents[start : start + CONTENTS])
            count = min(count, len(self.ids))
            places = np.argpartition(-chances, count - 1, axis=1)[:, :count]
            values = np.take_along_axis(chances, places, 1)
            order = np.lexsort((places, -values), axis=1)
            numbers, values = (np.take_along_axis(array, order, 1).tolist() for array in (places, values))
            found += [
                dict(zip([self.ids[number] for number in row], chance, strict=True))
                for row, chance in zip(numbers, values, strict=True)
            ]
        return found

    def chances(self, contents: Vectors) -> Vectors:
        """The probability of each tag, float32 [n, t]: the softmax of scale times the dot product, plus the bias."""
        logits = contents @ self.vectors.T
        logits *= np.float32(self.scale)
        logits += self.bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits


def read(folder: Path) -> tuple[bytes, str]:
    """Read tags.npz of a folder; returns its bytes and its name, derived from its hash. Raises UserError if there is
    none."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected what `tagbus export` leaves of an encoder that was "
            "trained with --recipe top-layers"
        ) from None
    if len(content) > FILE_BYTES:
        raise UserError(f"{path}: more than {FILE_BYTES} bytes, expected the vectors of at most some million tags")
    return content, f"tags-{sha256(content)[:8]}"
