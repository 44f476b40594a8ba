"""Find oddities in a file's broader tags: cycles, self-references and missing tags."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tagbus.stream.errors import shorten
from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.entry import SHOWN

_UNKNOWN: Final = (
    "FROM edge WHERE parent NOT IN (SELECT id FROM after) AND parent NOT IN ({staying})"
    " AND child IN (SELECT id FROM after)"
)


def oddities(comparison: Comparison) -> Iterator[str]:
    """One line for each kind, and for each cycle. None of them is an error: cycles are never followed."""
    scratch = comparison.scratch
    for what, where in (("that are broader than themselves", "FROM edge WHERE child = parent"), _MISSING):
        where = where.format(staying=comparison.staying)
        if count := scratch.number(f"SELECT COUNT(DISTINCT child) {where}"):
            found = scratch.rows(f"SELECT DISTINCT child {where} ORDER BY child LIMIT {SHOWN}")
            yield f"tags {what}: {count} ({listed([str(one) for (one,) in found], count)})"
    yield from _cycles(comparison)


_MISSING: Final = ("with a broader tag that is neither in the file nor kept on the topic", _UNKNOWN)


def _cycles(comparison: Comparison) -> Iterator[str]:
    """The strongly connected components of more than one tag."""
    scratch = comparison.scratch
    pairs = np.fromiter(
        (
            number
            for child, parent in scratch.rows(
                "SELECT child.rowid, parent.rowid FROM edge JOIN after child ON child.id = edge.child"
                " JOIN after parent ON parent.id = edge.parent WHERE edge.child <> edge.parent"
            )
            for number in (int(child or 0), int(parent or 0))
        ),
        dtype=np.int32,
    ).reshape(-1, 2)
    if not pairs.size:
        return
    size = int(pairs.max()) + 1
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, component = connected_components(graph.tocsr(), connection="strong")
    cyclic = np.flatnonzero(np.bincount(component) > 1)
    for number in cyclic[:SHOWN]:
        members = np.flatnonzero(component == number)
        names = [_id(comparison, int(row)) for row in members[:SHOWN]]
        yield f"{len(members)} tags are broader than each other in a cycle: {listed(names, len(members))}"
    if len(cyclic) > SHOWN:
        yield f"and {len(cyclic) - SHOWN} more cycles"


def _id(comparison: Comparison, row: int) -> str:
    ((found,),) = comparison.scratch.rows("SELECT id FROM after WHERE rowid = ?", (row,))
    return str(found)


def listed(ids: Sequence[str], count: int) -> str:
    """The first ids of `count`."""
    return ", ".join(shorten(one, 120) for one in ids) + (", …" if count > len(ids) else "")
