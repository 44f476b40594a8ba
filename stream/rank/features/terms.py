"""Feature table `terms`: how strongly the words and bigrams of a content predict a tag.

For a term w and a tag t the share is n(w, t) / (n(w) + 5), over n(w) training contents with w and n(w, t) of them for
which t was right. Pairs seen once are ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.rank.features.table import Batch, Counts
from tagbus.stream.recall.pool import Floats, Ints
from tagbus.stream.recall.words import digest, terms_of

SMOOTHED: Final = 5
# The number of terms read of a content; a title of YSO has 19.
READ: Final = 512
# Terms are known by their CRC-32: of 1,000,000 terms, one unknown term in 4,000 is taken for a known one.
HASHES: Final = 2**32

Hashes = NDArray[np.uint32]


def hashes_of(text: str) -> set[int]:
    """The hashes of the terms read of a text, the same for counting and lookup."""
    return {digest(term, HASHES) for term in islice(dict.fromkeys(terms_of(text)), READ)}


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Counts over the training contents: the hashes of w terms, ascending; the contents that hold each, int64 [w]; and
    for each its tags, `tags[starts[i]:starts[i + 1]]` for starts int64 [w + 1], that were right `together` times."""

    hashes: Hashes
    contents: Ints
    starts: Ints
    tags: NDArray[np.int32]
    together: NDArray[np.int32]

    name: ClassVar[str] = "terms"
    columns: ClassVar[Sequence[str]] = ("terms_max", "terms_support", "terms_or", "terms_lift")
    held: ClassVar[Sequence[str]] = ("hashes", "contents", "starts", "tags", "together")

    def of(self, batch: Batch) -> Floats:
        """The largest share; n(w, t) of its term (logarithm); one minus the product of all 1 - share; and the sum of
        the logarithms of share over prior that are positive. 0 for a tag that no term supports, NaN for an uncounted
        one."""
        tags, tables = batch.drawn.tags, batch.tables
        found = np.where(tags[:, None] < len(tables.counts), np.float32(0), np.float32(np.nan))
        found = np.repeat(found, len(self.columns), axis=1)
        place, pairs, terms = self._matched(batch)
        if not len(place):
            return found
        prior = np.maximum(tables.count(tags), 1) / max(tables.contents, 1)
        together = self.together[pairs]
        share = together / (self.contents[terms] + SMOOTHED)
        # The best of each tag is written last and stays.
        order = np.lexsort((together, share))
        found[place[order], 0] = share[order]
        found[place[order], 1] = np.log1p(together[order])
        # Added, so that unknown values stay NaN.
        found[:, 2] -= np.expm1(np.bincount(place, np.log1p(-share), len(tags)))
        found[:, 3] += np.bincount(place, np.maximum(np.log(share / prior[place]), 0), len(tags))
        return found

    def _matched(self, batch: Batch) -> tuple[Ints, Ints, Ints]:
        """The pairs of a content's term and one of its candidates: the candidate's index, the pair and its term."""
        rows, tags = batch.drawn.rows, batch.drawn.tags
        edges = np.searchsorted(rows, np.arange(len(batch.pool.texts) + 1)).tolist()
        # The index of each tag's candidate for the current content, -1 without one: a title's terms have many more tags
        # than it has candidates, and searching those for each took 0.09 ms a title where all of this takes 0.06.
        index = np.full(max(batch.pool.width, len(batch.tables.counts)), -1, np.int32)
        found: list[tuple[Ints, Ints, Ints]] = [(np.zeros(0, np.int64),) * 3]
        for text, (start, end) in zip(batch.pool.texts, pairwise(edges), strict=True):
            if start == end:
                continue
            terms = self._known(text)
            index[tags[start:end]] = np.arange(start, end)
            low, lengths = self.starts[terms], self.starts[terms + 1] - self.starts[terms]
            pairs = np.arange(lengths.sum()) + np.repeat(low - np.cumsum(lengths) + lengths, lengths)
            place = index[self.tags[pairs]]
            there = np.flatnonzero(place >= 0)
            found.append((place[there].astype(np.int64), pairs[there], np.repeat(terms, lengths)[there]))
            index[tags[start:end]] = -1
        place, pairs, terms = (np.concatenate(each) for each in zip(*found, strict=True))
        return place, pairs, terms

    def _known(self, text: str) -> Ints:
        """The known terms of a text, by number."""
        hashes = np.array(sorted(hashes_of(text)), np.uint32)
        if not len(self.hashes):
            return np.zeros(0, np.int64)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.asarray(place[self.hashes[place] == hashes], np.int64)

    def arrays(self) -> Mapping[str, Counts]:
        """See `FeatureTable`."""
        return {name: getattr(self, name) for name in self.held}

    @classmethod
    def load(cls, arrays: Mapping[str, Counts], tags: int) -> Self:
        """See `FeatureTable`."""
        hashes, contents, starts = arrays["hashes"], arrays["contents"], arrays["starts"]
        right, together = arrays["tags"], arrays["together"]
        fits = (
            contents.shape == hashes.shape == (len(starts) - 1,)
            and right.shape == together.shape == (int(starts[-1]),)
            and starts[0] == 0
            and (np.diff(starts) >= 0).all()
            and (hashes[1:] > hashes[:-1]).all()
            and (not len(right) or 0 <= right.min() <= right.max() < tags)
        )
        if not fits:
            raise ValueError(f"{len(hashes)} terms, {len(starts)} starts and {len(right)} pairs, which do not fit")
        return cls(
            hashes.astype(np.uint32),
            contents.astype(np.int64),
            starts.astype(np.int64),
            right.astype(np.int32),
            together.astype(np.int32),
        )
