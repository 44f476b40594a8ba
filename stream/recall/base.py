"""The recaller interface: one way to find tags for contents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tagbus.stream.memory.store import Scopes, Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A batch of n contents to find tags for: ids, texts, unit vectors [n, d] of the release's encoder, and scopes.

    `scopes` None: everything is visible.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    vectors: Vectors
    scopes: Scopes = None


class Recaller(Protocol):
    """Finds tags independently of the graph; provided by a component."""

    @property
    def name(self) -> str:
        """The name of its list in a ranker's features."""

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with this recaller's scores, best first, for each content of the batch.

        Raises DependencyDown if a dependency does not answer.
        """
