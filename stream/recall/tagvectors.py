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
from itertools import pairwise
from pathlib import Path
from typing import Final, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from tagbus.stream.dots import EightBitRows
from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten
from tagbus.stream.memory.hits import Ints
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
GROUPS: Final = 512


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
        if not (np.isfinite(vectors).all() and np.isfinite(bias).all()):
            raise UserError(f"{place}: a vector or a bias is not finite: the training diverged")
        return cls(ids, vectors, bias, scale, release)


class TagSearch:
    """Finds the most probable tags of contents. Thread-safe.

    Eight-bit products choose the tags, and their exact products decide, so that a probability does not depend on the
    rest of the batch. Of the sum over all tags only the part of the others is rounded.
    """

    def __init__(self, vectors: TagVectors) -> None:
        self._ids = vectors.ids
        self._vectors = vectors.vectors
        self._rounded = EightBitRows(vectors.vectors)
        self._bias = vectors.bias
        self._scale = vectors.scale

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
            listed, normalisers = self._best(contents[start : start + CONTENTS], count)
            found += listed
            for row, cosines in enumerate(others[start : start + CONTENTS]):
                if cosines:
                    found[start + row] = self._joined(listed[row], cosines, normalisers[row], count)
        return found

    def _best(self, contents: Vectors, count: int) -> tuple[list[Mapping[str, float]], list[float]]:
        """The best tags of each content, and the logarithm of its sum over all tags."""
        # As many as are exact in the sum, too.
        rows, tags, logits, normalisers = self._chosen(contents, max(count, BEST))
        order = np.lexsort((tags, -logits, rows))
        first = np.searchsorted(rows, np.arange(len(contents) + 1)).tolist()
        numbers, shares = tags[order].tolist(), np.exp(logits - normalisers[rows])[order].tolist()
        listed: list[Mapping[str, float]] = [
            dict(zip([self._ids[tag] for tag in numbers[start:end][:count]], shares[start:end][:count], strict=True))
            for start, end in pairwise(first)
        ]
        return listed, normalisers.tolist()

    def _chosen(self, contents: Vectors, count: int) -> tuple[Ints, Ints, Vectors, NDArray[np.float64]]:
        """The tags of each content that may be among its `count` best: tag `tags[i]` of content `rows[i]`, by row, with
        its score float32; and the logarithm of each content's sum over all tags, float64 [n]."""
        scores, slack = self._rounded.dots(contents)
        scores *= np.float32(self._scale)
        scores += self._bias
        flat = np.flatnonzero(scores >= _last(scores, count) - np.float32(self._scale) * slack)
        rows, tags = np.divmod(flat, scores.shape[1])
        logits = np.vecdot(self._vectors[tags], contents[rows]) * np.float32(self._scale) + self._bias[tags]
        rounded, most = scores.ravel()[flat], scores.max(axis=1)
        scores -= most[:, None]
        total = np.exp(scores, out=scores).sum(axis=1, dtype=np.float64)
        total += np.bincount(rows, np.exp(logits - most[rows]) - np.exp(rounded - most[rows]), len(contents))
        return rows, tags, logits, most + np.log(total)

    def _joined(
        self, listed: Mapping[str, float], cosines: Mapping[str, float], normaliser: float, count: int
    ) -> Mapping[str, float]:
        """The best of both; `normaliser` is the logarithm of the sum over the known tags."""
        further = {tag: 1 / (1 + math.exp(normaliser - self._scale * cosine)) for tag, cosine in cosines.items()}
        every = sorted((*listed.items(), *further.items()), key=lambda pair: -pair[1])
        return dict(every[:count])


def _last(logits: Vectors, count: int) -> Vectors:
    """At most the `count`-th largest of each row, float32 [n, 1].

    The largest of every `GROUPS`-th column are partitioned, not all columns: 0.004 ms a content, not 0.016, of 24,513.
    """
    groups = max(GROUPS, count)
    if (rounds := logits.shape[1] // groups) > 1:
        logits = logits[:, : rounds * groups].reshape(len(logits), rounds, groups).max(axis=1)
    place = min(max(0, logits.shape[1] - count), logits.shape[1] - 1)
    return np.partition(logits, place, axis=1)[:, place, None]


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

    def __init__(self, search: TagSearch, unseen: Unseen | None = None) -> None:
        """`unseen`: the tags without a trained vector; None: they are left to C2T."""
        self._search = search
        self._unseen = unseen

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with their probability, best first, for each content. Raises DependencyDown if memory does not
        answer."""
        hits = None if self._unseen is None else await self._unseen.search(query.vectors, BEST, query.scopes)
        others = (
            () if hits is None else [dict(zip(one.keys.tolist(), one.scores.tolist(), strict=True)) for one in hits]
        )
        return await asyncio.to_thread(self._search.best, query.vectors, BEST, others)


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
    search = await asyncio.to_thread(TagSearch, vectors)
    if recall.c2t and not recall.c2t_trained:
        # C2T searches the same tags, and no others.
        return Part(recallers=(TagVectorsRecall(search),), knows=known)
    unseen = Unseen(known, into.memory.tags)
    return Part(recallers=(TagVectorsRecall(search, unseen),), listeners={TAGS.name: unseen.change}, knows=known)


COMPONENT: Final = ComponentOf(
    name=NAME, settings=TagVectorsSettings, version=_version, open=_open_component, lists=(NAME,)
)
