"""What a release does with contents, in shadow and in force, and from where on that is misbehaviour."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tagbus.stream.contract.events import TaggedContent
from tagbus.stream.telemetry.drift import BINS, psi

# Contents after which shares and the index say anything.
FEWEST: Final = 50
# So many times the index that chance gives without a shift is allowed on top of the limit.
CHANCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a release misbehaves: the share of contents that become dead letters, the share without tags above
    the one expected, and the population stability index of the best tags' confidences against those expected, where
    0.25 is a large shift by the usual rule of thumb."""

    dead_letters: float = 0.02
    abstention: float = 0.05
    drift: float = 0.25


@dataclass(slots=True)
class ReleaseBehaviour:
    """Contents that failed or became dead letters, those without tags, and the confidence of the others' best tag."""

    failed: int = 0
    without_tags: int = 0
    confidences: list[float] = field(default_factory=list)

    def add(self, result: TaggedContent) -> None:
        """Count a result."""
        if result.tags:
            self.confidences.append(result.tags[0].confidence)
        else:
            self.without_tags += 1

    @property
    def tagged(self) -> int:
        """Contents that were tagged, those that got no tag among them."""
        return self.without_tags + len(self.confidences)

    @property
    def contents(self) -> int:
        """All contents."""
        return self.failed + self.tagged

    @property
    def failures(self) -> float:
        """The share that failed."""
        return self.failed / max(1, self.contents)

    @property
    def abstention(self) -> float:
        """The share of the tagged contents that got no tag."""
        return self.without_tags / max(1, self.tagged)

    def drift_from(self, expected: "ReleaseBehaviour") -> float:
        """The population stability index of the confidences, in deciles of those expected."""
        then, now = (np.array(one.confidences, np.float64) for one in (expected, self))
        if not len(then) or not len(now):
            return 0.0
        edges = np.unique(np.quantile(then, np.arange(1, BINS) / BINS))
        counts = [np.bincount(np.searchsorted(edges, one), minlength=len(edges) + 1).tolist() for one in (now, then)]
        return psi(counts[0], counts[1])

    def problems(self, expected: "ReleaseBehaviour", limits: Limits) -> Iterator[str]:
        """Limits that are passed, in words."""
        most = max(limits.dead_letters, expected.failures)
        if self.failures > most:
            yield f"{self.failures:.1%} of {self.contents:,} contents became dead letters, at most {most:.1%} may"
        if self.abstention > (most := expected.abstention + limits.abstention):
            yield f"{self.abstention:.1%} of {self.tagged:,} contents got no tag, at most {most:.1%} may"
        sizes = [max(1, len(one.confidences)) for one in (self, expected)]
        most = limits.drift + CHANCE * (BINS - 1) * (1 / sizes[0] + 1 / sizes[1])
        if (found := self.drift_from(expected)) > most:
            yield f"confidences drifted by {found:.2f} (PSI) from those of the shadow, at most {most:.2f} may be"
