"""The order in which the questions about a content are shown.

Models favour positions (Wang et al., Large Language Models are not Fair Evaluators, arXiv 2305.17926). In the order of
rank, such a bias repeats what the scores say already, and the judge would get weight for it.
"""

import hashlib
from collections.abc import Collection, Sequence

from tagbus.stream.llm.base import Asked


def shuffled(asked: Asked) -> tuple[int, ...]:
    """The questions of a content by a hash of its id and the tag's: indices.

    So no rank has a position of its own, and the same content is always asked in the same order.
    """
    first = asked.content.id.encode(errors="surrogatepass")

    def place(index: int) -> bytes:
        tag = asked.questions[index].tag_id.encode(errors="surrogatepass")
        return hashlib.blake2b(first + b"\0" + tag, digest_size=8).digest()

    return tuple(sorted(range(len(asked.questions)), key=place))


def in_requests(order: Sequence[int], wanted: Collection[int], at_once: int) -> list[list[int]]:
    """The wanted questions of each request, `at_once` at most: indices, shown in this order.

    The best ones go in the first request, because a deadline cuts off the last.
    """
    best, place = sorted(wanted), {index: place for place, index in enumerate(order)}
    return [sorted(best[start : start + at_once], key=place.__getitem__) for start in range(0, len(best), at_once)]
