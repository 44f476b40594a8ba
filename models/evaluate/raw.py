"""Raw rows of an evaluation: each test content's id, its tags with their confidences, and its right tags.

    python -m tagbus.models.evaluate.raw FILE...        compute the figures of these files again

One file per row of the table, of 0.5 MB for 10,000 contents, with the tags' counts in training, which propensities and
bands of frequency are computed from.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
from pydantic_core import from_json, to_json

from tagbus.stream import quality
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.intervals import bootstrap, recall_by_band
from tagbus.stream.quality import Ints, Ranked, Truth

# LLM4Tag drops tags with a lower confidence; Acc@k, Coverage@k and #Right count the remaining ones.
PUBLISHED: Final = 0.5
# Confidences have four digits (tagger/calibrate.py).
DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Raw:
    """The tags found for n contents `ids`, their right tags, and the number of training contents `trained`, of which
    tag i is right for `counts[i]`, int64 [t]."""

    ids: Sequence[str]
    ranked: Ranked
    truth: Truth
    counts: Ints
    trained: int

    def figures(self) -> dict[str, object]:
        """All quality figures, with their intervals."""
        ranked, truth = self.ranked, self.truth
        propensity = quality.propensities(self.counts, self.trained)
        interval = bootstrap(quality.parts(ranked, truth, propensity))
        low, high = _rounded(interval.low), _rounded(interval.high)
        bands = recall_by_band(ranked, truth, self.counts)
        published = quality.at_least(ranked, PUBLISHED)
        some = bool((published.indices >= 0).any())
        return {
            **_rounded(quality.measure(ranked, truth, propensity)),
            "f1_at_5": round(quality.f1_at(ranked, truth, 5), 2),
            **{f"r_at_10_{name}": None if value is None else round(value, 2) for name, value in bands.items()},
            "acc_at_3": round(quality.acc_at(published, truth, 3), 2) if some else None,
            "coverage_at_1": round(quality.coverage_at(published, 1), 2),
            "right": round(quality.right_tags(published, truth), 3),
            "hr_at_1": round(quality.hit_rate(published, truth, 1), 2),
            "intervals": {name: [low[name], high[name]] for name in low},
        }

    def dump(self) -> bytes:
        """Serialize: plain arrays, compressed, no pickled objects."""
        file = BytesIO()
        np.savez_compressed(
            file,
            allow_pickle=False,
            ids=np.frombuffer(to_json(list(self.ids)), np.uint8),
            tags=self.ranked.indices.astype(np.int32),
            confidences=np.rint(self.ranked.scores * 10**DIGITS).astype(np.uint16),
            right=np.concatenate([np.zeros(0, np.int64), *self.truth]).astype(np.int32),
            rights=np.array([len(one) for one in self.truth], np.int32),
            counts=self.counts.astype(np.int32),
            trained=np.int64(self.trained),
        )
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the output of `dump`. Raises UserError that names the file, if it is missing or has no raw rows."""
        try:
            with np.load(path, allow_pickle=False) as file:
                ids = list(map(str, from_json(file["ids"].tobytes())))
                scores = file["confidences"].astype(np.float64) / 10**DIGITS
                ranked = Ranked(file["tags"].astype(np.int64), scores)
                truth = np.split(file["right"].astype(np.int64), np.cumsum(file["rights"])[:-1])
                counts, trained = file["counts"].astype(np.int64), int(file["trained"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path}: {shorten(str(error))}, expected a file of raw rows of `tagbus evaluate-models`"
            ) from None
        return cls(ids, ranked, truth, counts, trained)


def _rounded(found: quality.Quality) -> dict[str, float]:
    return {name: round(value, 4 if name == "ece" else 2) for name, value in asdict(found).items()}


if __name__ == "__main__":
    for place in sys.argv[1:]:
        print(json.dumps({"file": place, **Raw.load(Path(place)).figures()}))
