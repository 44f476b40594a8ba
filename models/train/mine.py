"""Hard negatives and clusters, mined with the current encoder before each round of training.

sentence-transformers' `mine_hard_negatives` takes texts: it embeds them again, drops contents with too few negatives,
and returns no tag numbers, which masking false negatives needs. Here one embedding serves both steps.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data.truth import Truth
from tagbus.stream.errors import UserError

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNK = 1024


def hard_negatives(contents: Vectors, tags: Vectors, truth: Truth, count: int, among: int, seed: int) -> Ints:
    """For each content, `count` random tags of the `among` nearest wrong ones, int64 [n, count].

    Elsevier (2023.emnlp-industry.30, section 3.1) draws 3 of 100. Raises UserError if a content has fewer than `count`
    wrong tags.
    """
    random = np.random.default_rng(seed)
    found = np.empty((len(contents), count), np.int64)
    for start in range(0, len(contents), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(contents)))
        scores = contents[rows] @ tags.T
        places, right = truth.pairs(rows)
        scores[places, right] = -np.inf
        wrong = len(tags) - np.bincount(places, minlength=len(rows)).max(initial=0)
        if wrong < count:
            raise UserError(f"--negatives: {count} is wrong, a content has only {wrong} wrong tags")
        most = min(among, int(wrong))
        nearest = np.argpartition(-scores, most - 1, axis=1)[:, :most]
        # The head of a shuffled row: drawn without replacement.
        found[rows] = random.permuted(nearest, axis=1)[:, :count]
    return found


def clusters(vectors: Vectors, size: int, seed: int) -> Ints:
    """NGAME's clusters (Dahiya et al., WSDM 2023, section 3): contents are halved by balanced 2-means until a cluster
    has at most `size`. Returns all rows, int64 [n], cluster by cluster; the clusters are in random order."""
    random = np.random.default_rng(seed)
    done: list[Ints] = []
    left = [np.arange(len(vectors))]
    while left:
        rows = left.pop()
        if len(rows) <= size:
            done.append(rows)
        else:
            left.extend(_halves(vectors, rows, random))
    return np.concatenate([done[place] for place in random.permutation(len(done))])


def _halves(vectors: Vectors, rows: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Balanced spherical 2-means: the rows nearer to the other centre, and the rows nearer to the first."""
    one, other = vectors[random.choice(rows, 2, replace=False)]
    middle = len(rows) // 2
    for _ in range(4):
        rows = rows[np.argsort(vectors[rows] @ (one - other), kind="stable")]
        one, other = vectors[rows[middle:]].mean(0), vectors[rows[:middle]].mean(0)
    return rows[:middle], rows[middle:]


def batches(contents: Ints, tags: Ints, size: int) -> Iterator[Ints]:
    """Batches of `size` pairs in which no content and no tag occurs twice (Elsevier, section 3.1). Yields row numbers,
    int64.

    `contents` and `tags` int64 [m]: the pairs, in the desired order. A pair that conflicts with its batch is deferred
    to the next; the last batches may be smaller.
    """
    waiting: deque[int] = deque()
    source = iter(range(len(contents)))
    left = True
    while left or waiting:
        batch: list[int] = []
        seen: set[tuple[str, int]] = set()
        kept, waiting = waiting, deque()
        # Deferred pairs are bounded: if one tag were everywhere, all of the pairs would be deferred.
        while len(batch) < size and len(waiting) < 50 * size:
            pair = kept.popleft() if kept else next(source, -1)
            if pair < 0:
                left = False
                break
            marks = {("content", int(contents[pair])), ("tag", int(tags[pair]))}
            if seen & marks:
                waiting.append(pair)
            else:
                seen |= marks
                batch.append(pair)
        waiting.extend(kept)
        if batch:
            yield np.array(batch, np.int64)
