"""Find cycles among ids that reference each other: tags and their parents, tags and their successors."""

from collections.abc import Iterator, Mapping, Sequence

Links = Mapping[str, Sequence[str]]


def circles(links: Links) -> Iterator[list[str]]:
    """One cycle of each group of ids that lead back to themselves, with its first id repeated at the end.

    Every id is visited once, so of two cycles that share a part one may be left out.
    """
    done: set[str] = set()
    for start in links:
        # The path from `start`, in order, and the unvisited links of each of its ids.
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
