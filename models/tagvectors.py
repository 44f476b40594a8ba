"""The tag vectors that an encoder was trained against: a classifier of its own, which reads a content's vector alone.

`tagbus train biencoder --recipe upper` leaves them beside the encoder. Heads that were trained over that encoder take
them in (`tagbus train heads --beside RUN`): both say how probable a tag is, and the mean of the two is better than
either (the fusion of classifier and encoder in NGAME, Dahiya et al. 2023, WSDM, here with equal weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic_core import from_json, to_json
from torch import Tensor

from tagbus.models.losses import SCALE
from tagbus.stream.errors import UserError, shorten

FILE: Final = "tags.npz"
# The logit of a tag that the encoder was not trained against: no chance, and no part in the others'.
NEVER: Final = -1e4

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TagVectors:
    """Vectors float32 [t, d] and biases float32 [t] of the tags `ids`."""

    ids: tuple[str, ...]
    vectors: Floats
    bias: Floats

    def save(self, folder: Path) -> None:
        """tags.npz: arrays alone, nothing that could be executed."""
        ids = np.frombuffer(to_json(list(self.ids)), np.uint8)
        np.savez(folder / FILE, allow_pickle=False, ids=ids, vectors=self.vectors, bias=self.bias)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote. Raises UserError that names the file and what would be right."""
        path = folder / FILE
        try:
            with np.load(path, allow_pickle=False) as file:
                ids = tuple(map(str, from_json(file["ids"].tobytes())))
                vectors, bias = file["vectors"].astype(np.float32), file["bias"].astype(np.float32)
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path}: {shorten(str(error))}, expected the folder of `tagbus train biencoder --recipe upper`"
            ) from None
        if vectors.ndim != 2 or not len(ids) == len(vectors) == len(bias):
            raise UserError(f"{path}: {len(ids)} tags, vectors {vectors.shape}, {len(bias)} biases, which do not fit")
        return cls(ids, vectors, bias)

    def of(self, tags: Sequence[str], dimension: int) -> Self:
        """The same for these tags, in their order; one that is not there is never found.

        Raises UserError where the vectors are of another length than `dimension`.
        """
        if self.vectors.shape[1] != dimension:
            raise UserError(
                f"--beside: its tag vectors have {self.vectors.shape[1]} numbers, those of the release {dimension}; "
                "expected the run that the release was exported from"
            )
        places = {tag: place for place, tag in enumerate(self.ids)}
        rows = np.array([places.get(tag, -1) for tag in tags])
        known = rows >= 0
        vectors = np.where(known[:, None], self.vectors[rows], 0)
        return type(self)(tuple(tags), vectors, np.where(known, self.bias[rows], np.float32(NEVER)))

    def chances(self, contents: Tensor) -> Tensor:
        """How probable each tag is for unit vectors [n, d], float32 [n, t]; each row adds up to 1."""
        tags, bias = (torch.from_numpy(array).to(contents.device) for array in (self.vectors, self.bias))
        return (SCALE * contents @ tags.T + bias).softmax(1)
