"""Graph recall with memory scores: candidate tags for a content, their scores, and the evidence.

Candidates are the union of two meta-paths of LLM4Tag (arXiv 2502.13481, section 3.1): C2T, tags whose text is similar
to the content, and C2C2T, tags of similar exemplars. Each candidate is scored over the joint memory of RAE-XMC (arXiv
2502.10615, equation 4): p = softmax(q K^T / tau) V with V = [lambda * Y ; (1 - lambda) * I].
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.config import RecallSettings
from tagbus.stream.contract.events import Evidence
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory.hits import NO_HITS, Flags, Hits, Ints, Slice, TagNumbers, joined
from tagbus.stream.memory.scopes import audience, replaced_by
from tagbus.stream.memory.store import Payload, Scopes, Store, Vectors
from tagbus.stream.recall.neighbours import Neighbourhood, Reach, Seen, neighbour
from tagbus.stream.recall.pool import Ballots
from tagbus.stream.recall.taxonomy.standing import Standing
from tagbus.stream.recall.taxonomy.unseen import Unseen
from tagbus.stream.recall.votes import capped

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tag recalled for a content.

    The meaning of `score` depends on `stage`. recall: the tag's share of the softmax over memory, 0 to 1; fusion: a sum
    of reciprocal ranks; rank: the ranker's score, any number. `names` are the tag's by language, added by the stage
    `select`.
    """

    id: str
    name: str
    score: float
    evidence: Evidence
    stage: str = "recall"
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """What the components and the judge say of a tag, for its evidence; see `Evidence`."""

    scores: dict[str, float] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)
    unjudged: float | None = None


SILENT: Final = Said()


def _silent(tag_id: str) -> Said:  # noqa: ARG001
    return SILENT


@dataclass(frozen=True, slots=True)
class Found:
    """Recall's result for one content. Plain dictionaries by tag id: one object per tag cost more than the search."""

    # Every candidate's score.
    scores: Mapping[str, float] = field(default_factory=dict)
    # The cosine of candidates found by C2T.
    like: Mapping[str, float] = field(default_factory=dict)
    # The neighbours that voted, most similar first, and the tags each accepted.
    near: Slice = NO_HITS


def parameters(release: RecallDefaults, settings: RecallSettings) -> RecallDefaults:
    """The release's fitted parameters, with overrides from the settings."""
    overrides = settings.model_dump(include=set(RecallDefaults.model_fields), exclude_none=True)
    return release.model_copy(update=overrides)


class GraphRecall:
    """C2T, C2C2T and RAE-XMC over one memory of tags and exemplars."""

    def __init__(
        self,
        tags: Store,
        exemplars: Store,
        fitted: RecallDefaults,
        settings: RecallSettings,
        named: int = 3,
        unseen: Unseen | None = None,
    ) -> None:
        """`named`: limit of neighbours listed in a tag's evidence. `unseen`: the tags that C2T finds; None: all."""
        self._tags = tags
        self._neighbourhood = Neighbourhood(tags, exemplars, settings, unseen)
        self._settings = settings
        self._fitted = parameters(fitted, settings)
        self._named = named
        self.unseen = unseen

    @property
    def fitted(self) -> RecallDefaults:
        """The parameters in force: the release's, with overrides from the settings."""
        return self._fitted

    @property
    def numbers(self) -> TagNumbers:
        """The tag numbers of memory."""
        return self._tags.numbers

    @property
    def standing(self) -> Standing:
        """Resolves which tag a tag counts as; must be notified of every change of a tag."""
        return self._neighbourhood.standing

    async def recall(
        self, ids: Sequence[str], vectors: Vectors, limit: int, scopes: Scopes = None
    ) -> list[list[Candidate]]:
        """At most `limit` candidates, best first, for each content `ids` with unit vectors [n, d].

        A content's own exemplars never vote for it. Tags that people accepted for it come first; rejected tags, retired
        tags and tags outside its scopes are left out. Raises DependencyDown if the store does not answer.
        """
        seen = await self.look(ids, vectors, self.reach, scopes)
        found = self.score(seen)
        names = names_by_content(await self.payloads(found, seen), len(ids), scopes)
        return [self.pick(*each, limit) for each in zip(found, seen, names, strict=True)]

    @property
    def reach(self) -> Reach:
        """The search depth of the release's fitted parameters."""
        return Reach(self._fitted.tag_keys, self._fitted.content_keys)

    async def look(self, ids: Sequence[str], vectors: Vectors, reach: Reach, scopes: Scopes = None) -> list[Seen]:
        """Search memory around each content. Raises DependencyDown if the store does not answer."""
        return await self._neighbourhood.look(ids, vectors, reach, scopes)

    async def similar(self, vectors: Vectors, limit: int) -> Hits:
        """The nearest tags of each content, also those that C2T leaves out. Raises DependencyDown."""
        return await self._tags.search(vectors, limit)

    def score(self, seen: Sequence[Seen]) -> list[Found]:
        """Score by RAE-XMC over the top keys of each content: the share of each tag that a meta-path found."""
        fitted, width = self._fitted, max(1, len(self.numbers))
        direct = joined([one.direct.first(fitted.tag_keys) for one in seen])
        near = joined([one.near.first(fitted.content_keys) for one in seen])
        machine = [one.machine[: fitted.content_keys] for one in seen]
        tag_shares, vote_shares = self._shares(direct, near, np.concatenate([np.zeros(0, np.bool_), *machine]))
        # One key per pair of content and tag: row * width + tag.
        direct_keys = direct.queries * width + direct.tags
        votes = _Votes.of(near.queries[near.carriers] * width + near.tags, vote_shares[near.carriers])
        strong = near.scores.astype(np.float64) >= fitted.c2c_threshold
        like = (direct.ranks < fitted.c2t_limit) & (direct.scores.astype(np.float64) >= fitted.c2t_threshold)
        chosen = votes.best(strong[near.carriers], width, fitted.c2c2t_limit)
        keys = np.union1d(chosen, direct_keys[like])
        order = np.argsort(direct_keys)
        scores = _at(keys, votes.keys, votes.shares) + _at(keys, direct_keys[order], tag_shares[order])
        return self._found(np.divmod(keys, width), scores, direct.where(like), near.where(strong))

    def _shares(self, direct: Hits, near: Hits, machine: Flags) -> tuple[Doubles, Doubles]:
        """The weight of each tag and each exemplar in its content's softmax, lambda included, float64."""
        rows, contents = (direct.queries, near.queries), len(direct)
        cosines = direct.scores.astype(np.float64), near.scores.astype(np.float64)
        # Subtract the maximum, or exp overflows for a small tau.
        largest = np.full(contents, -np.inf)
        for row, cosine in zip(rows, cosines, strict=True):
            np.maximum.at(largest, row, cosine)
        by_tag, by_exemplar = (
            np.exp((cosine - largest[row]) / self._fitted.tau) for row, cosine in zip(rows, cosines, strict=True)
        )
        by_exemplar = capped(
            by_exemplar, Ballots(near.queries, near.scores, machine, near.carriers, near.tags), contents
        )
        total = np.bincount(rows[0], by_tag, contents) + np.bincount(rows[1], by_exemplar, contents)
        share = self._share()
        return (1 - share) * by_tag / total[rows[0]], share * by_exemplar / total[rows[1]]

    def _found(self, pairs: tuple[Ints, Ints], scores: Doubles, like: Hits, near: Hits) -> list[Found]:
        """Split by content; rows ascend."""
        rows, tags = pairs
        known, shares = self.numbers.ids, scores.tolist()
        ids = [known[tag] for tag in tags.tolist()]
        edges = np.searchsorted(rows, np.arange(len(like) + 1)).tolist()
        return [
            Found(
                dict(zip(ids[start:end], shares[start:end], strict=True)),
                dict(zip(direct.keys.tolist(), direct.scores.tolist(), strict=True)),
                voters,
            )
            for (start, end), direct, voters in zip(pairwise(edges), like, near, strict=True)
        ]

    def _share(self) -> float:
        """lambda; with one meta-path off, the other has all the weight."""
        if not self._settings.c2t:
            return 1.0
        return self._fitted.lambda_ if self._settings.c2c2t else 0.0

    async def payloads(self, found: Iterable[Found], seen: Iterable[Seen]) -> dict[str, Payload]:
        """The payloads of tags in force among those found or accepted in a batch."""
        return await self.facts(set[str]().union(*(one.scores for one in found), *(one.accepted for one in seen)))

    async def facts(self, tags: Iterable[str]) -> dict[str, Payload]:
        """The payloads of those tags that are in force."""
        found = await self._tags.fetch(sorted(tags))
        return {tag_id: payload for tag_id, payload in found.items() if not replaced_by(payload)}

    def pick(
        self,
        found: Found,
        seen: Seen,
        names: Mapping[str, str],
        limit: int,
        said: Callable[[str], Said] = _silent,
    ) -> list[Candidate]:
        """Tags that people accepted, then the rest by score. Evidence is built only for returned tags, with what `said`
        returns for the tag."""
        accepted = [tag_id for tag_id in seen.accepted if tag_id in names]
        ranked = sorted(
            (-score, tag_id)
            for tag_id, score in found.scores.items()
            if tag_id in names and tag_id not in seen.rejected and tag_id not in accepted
        )
        chosen = [*accepted, *(tag_id for _, tag_id in ranked[:limit])][:limit]
        evidence = self._evidence(found, chosen, frozenset(accepted), said)
        return [Candidate(tag_id, names[tag_id], found.scores.get(tag_id, 0.0), evidence[tag_id]) for tag_id in chosen]

    def _evidence(
        self, found: Found, chosen: Sequence[str], decided: frozenset[str], said: Callable[[str], Said]
    ) -> dict[str, Evidence]:
        """The evidence of the chosen tags."""
        near = found.near
        voted = near.tags == self.numbers.of(chosen)[:, None]
        voter = np.repeat(np.arange(len(near)), near.lengths)
        votes = voted.sum(axis=1).tolist()
        named = [voter[one][: self._named].tolist() if some else [] for one, some in zip(voted, votes, strict=True)]
        # The same few neighbours support most of a content's tags: build each only once.
        neighbours = {
            place: neighbour(near.keys[place], float(near.scores[place])) for place in set(chain.from_iterable(named))
        }
        return {
            tag_id: Evidence(
                similarity=round(found.like[tag_id], 4) if tag_id in found.like else None,
                votes=count,
                neighbours=tuple(neighbours[place] for place in places),
                scores=heard.scores,
                matched=heard.matched,
                unjudged=heard.unjudged,
                decided=tag_id in decided,
            )
            for tag_id, count, places, heard in zip(chosen, votes, named, map(said, chosen), strict=True)
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Votes:
    """The exemplars' votes, summed: `keys` int64 [v], ascending, with their `shares` float64 [v].

    Vote i is for key `places[i]`; `first` int64 [v] is the first vote of each key.
    """

    keys: Ints
    shares: Doubles
    places: Ints
    first: Ints

    @classmethod
    def of(cls, keys: Ints, shares: Doubles) -> "_Votes":
        union, first, places = np.unique(keys, return_index=True, return_inverse=True)
        return cls(union, np.bincount(places, shares, len(union)).astype(np.float64), places, first)

    def best(self, counted: Flags, width: int, limit: int) -> Ints:
        """C2C2T: the `limit` keys per content with the largest shares, among keys with a counted vote. Ties go to the
        tag of the nearer exemplar."""
        there = np.flatnonzero(np.bincount(self.places, counted, len(self.keys)))
        falling, first = -self.shares[there], self.first[there]
        edges = np.flatnonzero(np.diff(self.keys[there] // width, prepend=-1)).tolist()
        # Sort per content: sorting all at once by three keys took 41 µs of the 85 for scoring a content.
        best = [
            there[start:end][np.lexsort((first[start:end], falling[start:end]))[:limit]]
            for start, end in pairwise([*edges, len(there)])
        ]
        chosen: Ints = self.keys[np.concatenate([np.zeros(0, np.int64), *best])]
        return chosen


def _at(keys: Ints, known: Ints, values: Doubles) -> Doubles:
    """The value of each key, 0 for an unknown key; `known` ascends."""
    if not len(known):
        return np.zeros(len(keys))
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, values[place], 0.0)


def named(payloads: Mapping[str, Payload]) -> dict[str, str]:
    """The name of each tag."""
    return {tag_id: cast(str, payload["name"]) for tag_id, payload in payloads.items()}


def translated(payload: Payload) -> Mapping[str, str]:
    """A tag's names by language; empty if memory was filled before it kept them."""
    return cast(Mapping[str, str], payload.get("names", {}))


def names_by_content(payloads: Mapping[str, Payload], contents: int, scopes: Scopes) -> list[Mapping[str, str]]:
    """The names of the tags visible to each content."""
    names = named(payloads)
    scoped = {tag_id: seen_by for tag_id, payload in payloads.items() if (seen_by := audience(payload))}
    if scopes is None or not scoped:
        return [names] * contents
    hidden = {one: {tag_id for tag_id, seen_by in scoped.items() if seen_by.isdisjoint(one)} for one in set(scopes)}
    shown = {one: {tag_id: names[tag_id] for tag_id in names.keys() - tags} for one, tags in hidden.items()}
    return [shown[one] for one in scopes]
