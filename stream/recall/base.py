"""What a recaller is: one way to find tags for contents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tagbus.stream.memory.store import Scopes, Vectors


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A batch that tags are looked for: n content ids, texts, the release's unit vectors [n, d], and each one's scopes.

    Without scopes everything may be seen.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    vectors: Vectors
    scopes: Scopes = None


class Recaller(Protocol):
    """Finds tags beside the graph: literal names, classifier heads, label trees, a second encoder."""

    @property
    def name(self) -> str:
        """Of its list, in a ranker's features."""

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        """Tag ids with this recaller's own score, best first, for each content of the batch.

        Raises DependencyDown when what it asks does not answer.
        """
