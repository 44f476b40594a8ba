"""What a recaller is: one way to find tags for contents."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tagbus.stream.memory.store import Vectors


class Recaller(Protocol):
    """Finds tags beside the graph: literal names, classifier heads."""

    name: str

    async def recall(self, texts: Sequence[str], vectors: Vectors) -> list[Mapping[str, float]]:
        """Tag ids with this recaller's own score, best first, for each of n texts and their unit vectors [n, d].

        Raises DependencyDown when what it asks does not answer.
        """
