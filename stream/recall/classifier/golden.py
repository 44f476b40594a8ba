"""Golden answers of a classifier: what a server must answer before it is trusted.

In-process, hashes verify the files. A server can only be verified by its answers, and a classifier answers with tag
numbers: that of another training has the same shapes but means other tags.
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tagbus.stream.errors import ReleaseMismatch

QUESTIONS: Final = 4
# Tags kept per answer.
BEST: Final = 5
# Largest relative difference of a probability. CPUs agree to 1e-5; a GPU that multiplies in TF32 shifts a logit of up
# to 20 by about 0.01.
NEAR: Final = 0.05

Numbers = NDArray[np.int64]
Chances = NDArray[np.float32]


class Golden(BaseModel):
    """The best tags of each question by number, with their probabilities, best first. Stored in the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: tuple[tuple[int, ...], ...] = Field(min_length=QUESTIONS, max_length=QUESTIONS)
    chances: tuple[tuple[float, ...], ...] = Field(min_length=QUESTIONS, max_length=QUESTIONS)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if [len(each) for each in self.tags] != [len(each) for each in self.chances]:
            raise ValueError("expected a probability for each tag")
        return self

    @classmethod
    def of(cls, numbers: Numbers, chances: Chances) -> Self:
        """Build from the answers [questions, best] to all questions."""
        return cls(
            tags=tuple(tuple(row) for row in numbers[:, :BEST].tolist()),
            chances=tuple(tuple(round(one, 7) for one in row) for row in chances[:, :BEST].tolist()),
        )

    def check(self, numbers: Numbers, chances: Chances, name: str, where: str) -> None:
        """Raises ReleaseMismatch that names `where` and the tag if these are not the answers of the model `name`."""
        for row, (tags, expected) in enumerate(zip(self.tags, self.chances, strict=True)):
            found = dict(zip(numbers[row].tolist(), chances[row].tolist(), strict=True))
            for tag, chance in zip(tags, expected, strict=True):
                if not abs(found.get(tag, 0.0) - chance) <= NEAR * chance:
                    raise ReleaseMismatch(
                        f"{where} is not {name}: golden question {row} gives tag number {tag} a probability of "
                        f"{found.get(tag, 0.0):.5f}, expected {chance:.5f}"
                    )
