"""The golden texts of a release and their vectors: what a remote encoder must reproduce before it is trusted.

In-process, hashes verify the files. A server can only be verified by its answers, so each encodes these texts.
"""

from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.release import GOLDEN, Release
from tagbus.stream.errors import ReleaseMismatch, shorten

# float16 weights have a cosine of 1.0000 to float32, dynamic int8 0.96 to 0.993 depending on the processor.
COSINE: Final = 0.999

_PROSE: Final = "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands in southern Finland. "
# Every padded length, several scripts, and typical tokenizer problems. The first text is used where one is enough.
TEXTS: Final = (
    "A history of fishing rights in the Baltic Sea, 1809-1917",
    "Tea",
    "",
    "sauna",
    "Introduction to economics: a textbook for students",
    "Vesistöjen rehevöityminen ja kalakannat Itämerellä",
    "Skolans historia i Finland under 1900-talet",
    "Machine learning for subject indexing in digital libraries",
    "L'été à la campagne : œuvres complètes, tome Ⅳ",
    "Straßenbau und Verkehrsplanung in Großstädten",
    "El niño y la niña: fenómenos climáticos del Pacífico",
    "Η ιστορία της αλιείας στη Βαλτική Θάλασσα",
    "Машинное обучение и цифровые библиотеки",
    "История финской литературы XIX века в трёх томах",
    "תולדות הספרייה הלאומית",
    "تاريخ المكتبات في العالم العربي",
    "डिजिटल पुस्तकालयों में मशीन लर्निंग",
    "図書館における主題索引の自動化",
    "数字图书馆中的机器学习与主题标引研究",
    "디지털 도서관의 기계 학습",
    "ประวัติศาสตร์การประมงในทะเลบอลติก",
    "🦊🏃‍♀️🇫🇮 emoji and other signs ½ € ∞",
    "[CLS] marks of the tokenizer are text here [SEP] [PAD] [MASK]",
    "tab\tline\nreturn\rnul\0nbsp\u00a0zero\u200bwidth",
    "x" * 300,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9",
    _PROSE,
    _PROSE * 3,
    _PROSE * 5,
    _PROSE * 8,
    _PROSE * 11,
    "Машинное обучение и цифровые библиотеки. " * 40,
)


class Golden(BaseModel):
    """golden.json next to the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str = Field(description="the name of the release whose vectors these are")
    texts: tuple[str, ...] = Field(min_length=1)
    vectors: tuple[tuple[float, ...], ...] = Field(description="of unit length, one for each text")

    def check(self, found: Vectors, where: str) -> None:
        """Raises ReleaseMismatch that names `where` and the text if a vector is not the release's."""
        expected = np.array(self.vectors, dtype=np.float64)
        lengths = np.linalg.norm(found.astype(np.float64), axis=1)
        cosines = (found * expected).sum(axis=1) / np.where(lengths > 0, lengths, 1)
        # A vector with NaN or infinity has no cosine, and fails the comparison.
        good = cosines >= COSINE
        if not good.all():
            worst = int(np.where(good, np.inf, np.nan_to_num(cosines, nan=-1)).argmin())
            raise ReleaseMismatch(
                f"{where} is not release {self.release}: golden text {shorten(self.texts[worst])} has a cosine of "
                f"{cosines[worst]:.4f} to its stored vector, expected {COSINE} or more"
            )


def load_golden(folder: Path, release: Release) -> Golden:
    """Load the golden texts next to the model. Raises ReleaseMismatch if they are missing or of another release."""
    path = folder / GOLDEN
    try:
        golden = Golden.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReleaseMismatch(f"{path}: {error.strerror}; expected the release's golden texts") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ReleaseMismatch(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    shape = {(len(golden.texts), release.dimension)}
    if golden.release != release.name or {(len(golden.vectors), len(one)) for one in golden.vectors} != shape:
        raise ReleaseMismatch(
            f"{path} holds vectors of release {golden.release}, expected {release.name} with {release.dimension} "
            "numbers for each text"
        )
    return golden


def make_golden(release: str, vectors: Vectors) -> bytes:
    """Serialize golden.json of a release, from the vectors of TEXTS."""
    # Seven digits keep the cosine to 1e-13, and almost all of them agree between machines.
    rows = tuple(tuple(round(float(number), 7) for number in row) for row in vectors)
    return (Golden(release=release, texts=TEXTS, vectors=rows).model_dump_json(indent=None) + "\n").encode()
