"""The golden pairs of a cross-encoder: the scores that a server must return before it is used.

Files in this process are verified by hash. A server can only be verified by its answers, and the scores of another
cross-encoder look alike but mean something else to the ranker that was trained on these.
"""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tagbus.stream.errors import ReleaseMismatch, shorten

# Largest difference of a score's logit. Rounding to TF32, as a GPU does, moved those of a MiniLM by 0.0003. Two
# trainings that had seen 200 contents, and told pairs hardly apart yet, differed by 0.11.
NEAR: Final = 0.03
# Scores closer to 0 or 1 count as this: float32 does not resolve their logits.
LEAST: Final = 1e-4

_PROSE: Final = "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands in southern Finland. "
# Right, near and wrong tags for texts of all padded lengths and several scripts, and tokenizer edge cases. The first is
# the canary.
PAIRS: Final = (
    ("fishing rights", "A history of fishing rights in the Baltic Sea, 1809-1917"),
    ("tea", "Tea"),
    ("coffee\njava, espresso", "Tea"),
    ("", "Introduction to economics: a textbook for students"),
    ("economics\nnational economy", "Introduction to economics: a textbook for students"),
    ("law of the sea", "Beekeeping on the roofs of large cities"),
    ("beekeeping\napiculture, honey bees", "Beekeeping on the roofs of large cities"),
    ("beekeeping", ""),
    ("rehevöityminen\neutrofoituminen", "Vesistöjen rehevöityminen ja kalakannat Itämerellä"),
    ("Straßenbau", "Straßenbau und Verkehrsplanung in Großstädten"),
    ("библиотеки", "Машинное обучение и цифровые библиотеки"),
    ("図書館", "図書館における主題索引の自動化"),
    ("[SEP] marks", "[CLS] marks of the tokenizer are text here [SEP] [PAD] [MASK]"),
    ("peatlands\nbogs, mires", _PROSE * 2),
    ("Baltic Sea", _PROSE * 4),
    ("nitrogen", _PROSE * 8),
)


class Golden(BaseModel):
    """The golden pairs and their scores, a part of cross_encoder.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[tuple[str, str], ...] = Field(min_length=1, description="a tag's text and a content's")
    scores: tuple[float, ...] = Field(description="one for each pair")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.pairs) != len(self.scores):
            raise ValueError("expected a score for each pair")
        return self

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> Self:
        """From the scores float32 [len(PAIRS)] of PAIRS."""
        return cls(pairs=PAIRS, scores=tuple(round(score, 7) for score in scores.tolist()))

    def check(self, found: NDArray[np.float32], name: str, where: str) -> None:
        """Raises ReleaseMismatch that names server (`where`) and pair if a score is not that of `name`."""
        far = np.abs(_logits(found) - _logits(np.array(self.scores)))
        if not (far <= NEAR).all():
            worst = int(far.argmax())
            tag, content = self.pairs[worst]
            raise ReleaseMismatch(
                f"{where} is not {name}: golden pair {shorten(tag)}, {shorten(content)} has a score of "
                f"{found[worst]:.4f}, expected {self.scores[worst]:.4f}"
            )


def _logits(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    kept = np.clip(scores.astype(np.float64), LEAST, 1 - LEAST)
    return np.asarray(np.log(kept / (1 - kept)))
