"""Component `tagvectors`: the tag vectors that an encoder was trained against, a classifier over a content's vector.

`tagbus train biencoder --recipe top-layers` and `tagbus train whole` train the encoder against all tags as free vectors
and store them next to it; `tagbus export` includes them, with the name of the release. Where that encoder is the
release, this component adds the tag vectors' scores to its neighbours' votes: one product, no second encoding and no
second memory. A second encoder has separate tag vectors. A tag outside the training data, such as a new one, uses the
vector of its text in memory instead, which that encoder places near its contents.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
from pydantic_core import from_json, to_json

from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten
from tagbus.stream.memory.kinds import TAGS
from tagbus.stream.memory.store import Vectors
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import ComponentOf, Part, Surroundings, TrainedSettings, variable
from tagbus.stream.recall.taxonomy.unseen import Unseen

NAME: Final = "tagvectors"
FILE: Final = "tags.npz"
# A million tags with 384 dimensions are 1.5 GB.
FILE_BYTES: Final = 2_000_000_000
# Contents scored at a time: 64 against 25,000 tags are 6 MB.
CONTENTS: Final = 64
# Limit of tags per content: as many as a ranker reads of a list.
BEST: Final = 60


@dataclass(frozen=True, slots=True)
class TagVectors:
    """Vectors float32 [t, d] and biases float32 [t] of the tags `ids`; `scale` multiplies the dot product.

    `release` is the encoder's, empty until it is exported.
    """

    ids: tuple[str, ...]
    vectors: Vectors
    bias: Vectors
    scale: float
    release: str = ""

    def dump(self) -> bytes:
        """Serialize tags.npz: plain arrays, no pickled objects."""
        file = BytesIO()
        ids = np.frombuffer(to_json(list(self.ids)), np.uint8)
        scale, release = np.float64(self.scale), np.frombuffer(self.release.encode(), np.uint8)
        np.savez(file, allow_pickle=False, ids=ids, vectors=self.vectors, bias=self.bias, scale=scale, release=release)
        return file.getvalue()

    @classmethod
    def parse(cls, place: Path, content: bytes) -> Self:
        """Parse the output of `dump`. Raises UserError that names the place and the expected value."""
        try:
            with np.load(BytesIO(content), allow_pickle=False) as file:
                ids = tuple(map(str, from_json(file["ids"].tobytes())))
                vectors, bias = (np.asarray(file[name], np.float32) for name in ("vectors", "bias"))
                scale = float(file["scale"])
                # Files exported before releases were named in them serve a second encoder, which has its own release.
                release = file["release"].tobytes().decode() if "release" in file else ""
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{place}: {shorten(str(error))}, expected a file of `tagbus train biencoder --recipe top-layers` or "
                "`tagbus train whole`"
            ) from None
        if vectors.ndim != 2 or not len(ids) == len(vectors) == len(bias) > 0:
            raise UserError(f"{place}: {len(ids)} tags, vectors {vectors.shape}, {len(bias)} biases, which do not fit")
        return cls(ids, vectors, bias, scale, release)

    def best(
        self, contents: Vectors, count: int, others: Sequence[Mapping[str, float]] = ()
    ) -> list[Mapping[str, float]]:
        """The `count` most probable tags of each unit vector [n, d], best first; probabilities sum to 1 over all
        tags.

        `others`: for each content the cosines of further tags, each of which has the probability that it would have if
        it alone joined them.
        """
        found: list[Mapping[str, float]] = []
        for start in range(0, len(contents), CONTENTS):
            logits = self._logits(contents[start : start + CONTENTS])
            most = logits.max(axis=1, keepdims=True)
            logits -= most
            np.exp(logits, out=logits)
            total = logits.sum(axis=1, keepdims=True)
            found += self._listed(logits / total, count)
            for row, cosines in enumerate(others[start : start + CONTENTS]):
                if cosines:
                    normaliser = float(most[row, 0]) + math.log(float(total[row, 0]))
                    found[start + row] = self._joined(found[start + row], cosines, normaliser, count)
        return found

    def _logits(self, contents: Vectors) -> Vectors:
        """The score of each tag, float32 [n, t]: scale times the dot product, plus the bias."""
        logits = contents @ self.vectors.T
        logits *= np.float32(self.scale)
        logits += self.bias
        return logits

    def _listed(self, chances: Vectors, count: int) -> list[Mapping[str, float]]:
        count = min(count, len(self.ids))
        places = np.argpartition(-chances, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(chances, places, 1)
        order = np.lexsort((places, -values), axis=1)
        numbers, values = (np.take_along_axis(array, order, 1).tolist() for array in (places, values))
        return [
            dict(zip([self.ids[number] for number in row], chance, strict=True))
            for row, chance in zip(numbers, values, strict=True)
        ]

    def _joined(
        self, listed: Mapping[str, float], cosines: Mapping[str, float], normaliser: float, count: int
    ) -> Mapping[str, float]:
        """The best of both; `normaliser` is the logarithm of the sum over the known tags."""
        further = {tag: 1 / (1 + math.exp(normaliser - self.scale * cosine)) for tag, cosine in cosines.items()}
        every = sorted((*listed.items(), *further.items()), key=lambda pair: -pair[1])
        return dict(every[:count])


def read(folder: Path) -> tuple[bytes, str]:
    """Read tags.npz of a folder; returns its bytes and its name, derived from its hash. Raises UserError if it is
    missing."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a file of `tagbus export` for an encoder of "
            "`tagbus train biencoder --recipe top-layers` or `tagbus train whole`"
        ) from None
    if len(content) > FILE_BYTES:
        raise UserError(f"{path}: more than {FILE_BYTES} bytes, expected the vectors of at most some million tags")
    return content, f"tags-{sha256(content)[:8]}"


class TagVectorsRecall:
    """The tags whose vectors are most similar to a content's, with their probabilities over all known tags.

    Tags in memory without a trained vector are searched by their texts, as in C2T, unless C2T searches them alone.
    """

    name: str = NAME

    def __init__(self, vectors: TagVectors, unseen: Unseen | None = None) -> None:
        """`unseen`: the tags without a trained vector; None: they are left to C2T."""
        self._vectors = vectors
        self._unseen = unseen

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with their probability, best first, for each content. Raises DependencyDown if memory does not
        answer."""
        hits = None if self._unseen is None else await self._unseen.search(query.vectors, BEST, query.scopes)
        others = (
            () if hits is None else [dict(zip(one.keys.tolist(), one.scores.tolist(), strict=True)) for one in hits]
        )
        return await asyncio.to_thread(self._vectors.best, query.vectors, BEST, others)


class TagVectorsSettings(TrainedSettings):
    """`folder` holds tags.npz of the release, as `tagbus export` writes it beside the encoder's model."""


def _version(section: TagVectorsSettings) -> str | None:
    return None if section.folder is None else read(section.folder)[1]


async def _open_component(section: TagVectorsSettings, into: Surroundings) -> Part:
    folder = section.folder
    if folder is None:
        raise ValueError("tag vectors without a folder are off")
    content, _ = await asyncio.to_thread(read, folder)
    vectors = await asyncio.to_thread(TagVectors.parse, folder / FILE, content)
    if vectors.release != into.release.name:
        raise ReleaseMismatch(
            f"{folder / FILE} belongs to release {vectors.release or '(none: it was not exported)'}, but the encoder "
            f"is {into.release.name}; set {variable(NAME, 'folder')} to the folder that `tagbus export` wrote for it"
        )
    if (length := vectors.vectors.shape[1]) != into.release.dimension:
        raise UserError(f"{folder / FILE}: vectors of {length} numbers, expected {into.release.dimension}")
    known, recall = frozenset(vectors.ids), into.settings.recall
    if recall.c2t and not recall.c2t_trained:
        # C2T searches the same tags, and no others.
        return Part(recallers=(TagVectorsRecall(vectors),), knows=known)
    unseen = Unseen(known, into.memory.tags)
    return Part(recallers=(TagVectorsRecall(vectors, unseen),), listeners={TAGS.name: unseen.change}, knows=known)


COMPONENT: Final = ComponentOf(
    name=NAME, settings=TagVectorsSettings, version=_version, open=_open_component, lists=(NAME,)
)
