"""Circles among ids that name each other: tags and their parents, tags and what has replaced them."""

from collections.abc import Iterator, Mapping, Sequence

Links = Mapping[str, Sequence[str]]


def circles(links: Links) -> Iterator[list[str]]:
    """A circle of each group of ids that lead back to themselves, its first id again at its end.

    Every id is looked at once, so of two circles that share a part one may be left out.
    """
    done: set[str] = set()
    for start in links:
        # The way from `start`, in order, and what is left to look at of each of its ids.
        way: dict[str, Iterator[str]] = {}
        _enter(start, links, way, done)
        while way:
            last = next(reversed(way))
            following = next(way[last], None)
            if following is None:
                del way[last]
            elif following in way:
                ids = [*way]
                yield [*ids[ids.index(following) :], following]
            else:
                _enter(following, links, way, done)


def _enter(one: str, links: Links, way: dict[str, Iterator[str]], done: set[str]) -> None:
    if one not in done and one in links:
        done.add(one)
        way[one] = iter(links[one])
