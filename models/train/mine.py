"""What the current encoder is asked before a round of training: hard negatives, and which contents go together.

sentence-transformers' `mine_hard_negatives` works on texts: it embeds them once more, drops contents that find too few
negatives, and gives no numbers, by which false negatives are masked. Here both questions are asked of one embedding.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tagbus.models.data.truth import Truth

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNK = 1024


def hard_negatives(contents: Vectors, tags: Vectors, truth: Truth, count: int, among: int, seed: int) -> Ints:
    """For each content `count` tags at random of the `among` nearest that are wrong for it, int64 [n, count].

    Elsevier (2023.emnlp-industry.30, section 3.1) takes 3 of 100. Raises ValueError where a content is left with fewer
    than `count` wrong tags.
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
            raise ValueError(f"{count} negatives are asked for, and a content has {wrong} wrong tags")
        most = min(among, int(wrong))
        nearest = np.argpartition(-scores, most - 1, axis=1)[:, :most]
        # The first of a shuffled row are drawn without putting back.
        found[rows] = random.permuted(nearest, axis=1)[:, :count]
    return found


def clusters(vectors: Vectors, size: int, seed: int) -> Ints:
    """NGAME's clusters (Dahiya et al., WSDM 2023, section 3): contents in halves and halves again by balanced 2-means,
    down to `size` or fewer. Returns all rows, those of a cluster one after another, int64 [n]; the clusters are in
    random order."""
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
    """Balanced spherical 2-means: the half nearer to one centre than to the other, and the rest."""
    one, other = vectors[random.choice(rows, 2, replace=False)]
    middle = len(rows) // 2
    for _ in range(4):
        rows = rows[np.argsort(vectors[rows] @ (one - other), kind="stable")]
        one, other = vectors[rows[middle:]].mean(0), vectors[rows[:middle]].mean(0)
    return rows[:middle], rows[middle:]


def batches(contents: Ints, tags: Ints, size: int) -> Iterator[Ints]:
    """Pairs in batches of `size`, in which no content and no tag stands twice (Elsevier, section 3.1).

    `contents` and `tags` int64 [m]: the pairs in the order in which they are wanted. One that may not join the batch
    waits for the next; the last batches may be smaller. Gives row numbers, int64.
    """
    waiting: deque[int] = deque()
    source = iter(range(len(contents)))
    left = True
    while left or waiting:
        batch: list[int] = []
        seen: set[tuple[str, int]] = set()
        kept, waiting = waiting, deque()
        # What waits is bounded: a set with one tag everywhere would hold all of it here.
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
