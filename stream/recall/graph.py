"""Graph recall with memory scores: which tags to consider for a content, how good each is, and why.

Candidates are the union of two meta-paths of LLM4Tag (arXiv 2502.13481, section 3.1): C2T, tags whose text is like the
content, and C2C2T, tags of exemplars that are like it. Each candidate is scored over the joint memory of RAE-XMC
(arXiv 2502.10615, equation 4): p = softmax(q K^T / tau) V with V = [lambda * Y ; (1 - lambda) * I].
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from tagbus.stream.config import RecallSettings
from tagbus.stream.contract.events import Evidence, Neighbour, exemplar_key
from tagbus.stream.contract.fields import Source
from tagbus.stream.encoder.release import RecallDefaults
from tagbus.stream.memory.store import Hit, Payload, Store, Vectors

Stage = Literal["recall", "fusion", "rank"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tag recalled for a content.

    `score` is what `stage` says. recall: its share of the softmax over memory, 0 to 1; fusion: a sum of reciprocal
    ranks; rank: the ranker's, any number. `features` are what a ranker saw of it, by column; None without one.
    """

    id: str
    name: str
    score: float
    evidence: Evidence
    stage: Stage = "recall"
    features: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a search goes: the nearest tags and the nearest exemplars of a content."""

    tags: int
    contents: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What memory holds around one content, and what people decided about it."""

    # The nearest tags, most similar first.
    direct: Sequence[Hit]
    # The nearest exemplars that may vote, most similar first, and what each accepted: never the content's own, one a
    # content.
    near: Sequence[tuple[Hit, Sequence[str]]]
    accepted: tuple[str, ...] = ()
    rejected: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """What recall found for one content. Plain dictionaries by tag id: an object a tag cost more than the search."""

    # Every candidate's score.
    scores: Mapping[str, float] = field(default_factory=dict)
    # The cosine of those that came by C2T.
    like: Mapping[str, float] = field(default_factory=dict)
    # The neighbours that voted, most similar first, and what each accepted.
    near: Sequence[tuple[Hit, Sequence[str]]] = ()


def parameters(release: RecallDefaults, settings: RecallSettings) -> RecallDefaults:
    """The release's fitted parameters with what the settings override."""
    overrides = settings.model_dump(include=set(RecallDefaults.model_fields), exclude_none=True)
    return release.model_copy(update=overrides)


class GraphRecall:
    """C2T, C2C2T and RAE-XMC over one memory of tags and exemplars."""

    def __init__(
        self, tags: Store, exemplars: Store, fitted: RecallDefaults, settings: RecallSettings, named: int = 3
    ) -> None:
        """`named`: how many neighbours a tag's evidence names at most."""
        self._tags = tags
        self._exemplars = exemplars
        self._settings = settings
        self._fitted = parameters(fitted, settings)
        self._named = named

    async def recall(self, ids: Sequence[str], vectors: Vectors, limit: int) -> list[list[Candidate]]:
        """At most `limit` candidates, by falling score, of each content `ids` with unit vectors [n, d].

        A content's own exemplars never vote for it. Tags that people accepted for it come first and those that they
        rejected never come. Retired tags never come. Raises DependencyDown when the store does not answer.
        """
        seen = await self.look(ids, vectors, self.reach)
        found = [self.score(one) for one in seen]
        names = named(await self.payloads(found, seen))
        return [self.pick(*pair, names, limit) for pair in zip(found, seen, strict=True)]

    @property
    def reach(self) -> Reach:
        """How far the release's fitted parameters search."""
        return Reach(self._fitted.tag_keys, self._fitted.content_keys)

    async def look(self, ids: Sequence[str], vectors: Vectors, reach: Reach) -> list[Seen]:
        """What memory holds around each content. Raises DependencyDown when the store does not answer."""
        if not ids:
            return []
        keys = [exemplar_key(content_id, "people") for content_id in ids]
        # Together: on a server each is a round trip.
        direct, similar, own = await asyncio.gather(
            self._search_tags(vectors, reach.tags),
            self._search_exemplars(vectors, reach.contents),
            self._exemplars.fetch(keys),
        )
        return [
            Seen(
                tags,
                [(hit, texts(hit.payload, "accepted")) for hit in _electorate(content_id, contents)[: reach.contents]],
                tuple(texts(own.get(key, {}), "accepted")),
                frozenset(texts(own.get(key, {}), "rejected")),
            )
            for content_id, key, tags, contents in zip(ids, keys, direct, similar, strict=True)
        ]

    async def _search_tags(self, vectors: Vectors, limit: int) -> list[list[Hit]]:
        if not self._settings.c2t:
            return [[] for _ in vectors]
        return await self._tags.search(vectors, limit)

    async def _search_exemplars(self, vectors: Vectors, limit: int) -> list[list[Hit]]:
        if not self._settings.c2c2t:
            return [[] for _ in vectors]
        # Two more than asked for: a content's own exemplars, by people and by machine, are left out afterwards.
        return await self._exemplars.search(vectors, limit + 2)

    def score(self, seen: Seen) -> Found:
        """RAE-XMC over the top keys: the share of each tag that comes by a meta-path."""
        fitted = self._fitted
        direct, ballots = seen.direct[: fitted.tag_keys], seen.near[: fitted.content_keys]
        if not direct and not ballots:
            return Found()
        tag_weights, exemplar_weights = self._weights(direct, [hit for hit, _ in ballots])
        total = float(tag_weights.sum() + exemplar_weights.sum())
        share = self._share()
        voted: dict[str, float] = {}
        for (_, accepted), vote in zip(ballots, (share / total * exemplar_weights).tolist(), strict=True):
            for tag_id in accepted:
                voted[tag_id] = voted.get(tag_id, 0.0) + vote
        near = [ballot for ballot in ballots if ballot[0].similarity >= fitted.c2c_threshold]
        scores = self._chosen(voted if len(near) == len(ballots) else _tags_of(near), voted)
        like: dict[str, float] = {}
        for rank, (hit, weight) in enumerate(zip(direct, ((1 - share) / total * tag_weights).tolist(), strict=True)):
            if rank < fitted.c2t_limit and hit.similarity >= fitted.c2t_threshold:
                like[hit.key] = hit.similarity
                scores[hit.key] = voted.get(hit.key, 0.0) + weight
            elif hit.key in scores:
                scores[hit.key] += weight
        return Found(scores, like, near)

    def _chosen(self, tags: Iterable[str], voted: Mapping[str, float]) -> dict[str, float]:
        """C2C2T: the tags with most votes, and their votes; of equal ones those of nearer exemplars."""
        ranked = sorted(tags, key=voted.__getitem__, reverse=True)
        return {tag_id: voted[tag_id] for tag_id in ranked[: self._fitted.c2c2t_limit]}

    def _weights(
        self, direct: Sequence[Hit], similar: Sequence[Hit]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        cosines = np.array([hit.similarity for hit in (*direct, *similar)], dtype=np.float64)
        # Minus the largest, or exp overflows for a small tau.
        weights = np.exp((cosines - cosines.max()) / self._fitted.tau)
        return weights[: len(direct)], _capped(weights[len(direct) :], similar)

    def _share(self) -> float:
        """lambda; with one meta-path switched off the other has all the weight."""
        if not self._settings.c2t:
            return 1.0
        return self._fitted.lambda_ if self._settings.c2c2t else 0.0

    async def payloads(self, found: Iterable[Found], seen: Iterable[Seen]) -> dict[str, Payload]:
        """The tags in force among all that were found or accepted for a batch."""
        return await self.facts(set[str]().union(*(one.scores for one in found), *(one.accepted for one in seen)))

    async def facts(self, tags: Iterable[str]) -> dict[str, Payload]:
        """What memory keeps of those tags that are in force."""
        return await self._tags.fetch(sorted(tags))

    def pick(self, found: Found, seen: Seen, names: Mapping[str, str], limit: int) -> list[Candidate]:
        """What people accepted, then the rest by score; evidence is written out for those that are returned only."""
        accepted = [tag_id for tag_id in seen.accepted if tag_id in names]
        ranked = sorted(
            (-score, tag_id)
            for tag_id, score in found.scores.items()
            if tag_id in names and tag_id not in seen.rejected and tag_id not in accepted
        )
        chosen = [*accepted, *(tag_id for _, tag_id in ranked[:limit])][:limit]
        evidence = self._evidence(found, chosen, frozenset(accepted))
        return [Candidate(tag_id, names[tag_id], found.scores.get(tag_id, 0.0), evidence[tag_id]) for tag_id in chosen]

    def _evidence(self, found: Found, chosen: Sequence[str], decided: frozenset[str]) -> dict[str, Evidence]:
        """Why each of the chosen tags was found."""
        voters: dict[str, list[int]] = {tag_id: [] for tag_id in chosen}
        for number, (_, tags) in enumerate(found.near):
            for tag_id in tags:
                if tag_id in voters:
                    voters[tag_id].append(number)
        # The same few neighbours speak for most of a content's tags: each is written out once.
        named = {number for numbers in voters.values() for number in numbers[: self._named]}
        neighbours = {number: _neighbour(found.near[number][0]) for number in named}
        return {
            tag_id: Evidence(
                similarity=round(found.like[tag_id], 4) if tag_id in found.like else None,
                votes=len(numbers),
                neighbours=tuple(neighbours[number] for number in numbers[: self._named]),
                decided=tag_id in decided,
            )
            for tag_id, numbers in voters.items()
        }


def _neighbour(hit: Hit) -> Neighbour:
    return Neighbour(
        id=cast(str, hit.payload["id"]),
        source=cast(Source, hit.payload["source"]),
        similarity=round(hit.similarity, 4),
    )


def _tags_of(ballots: Iterable[tuple[Hit, Sequence[str]]]) -> dict[str, None]:
    """Every tag of these exemplars once, in their order."""
    return dict.fromkeys(tag_id for _, accepted in ballots for tag_id in accepted)


def texts(payload: Payload, name: str) -> Sequence[str]:
    """A list of strings in a payload that this project wrote."""
    return payload.get(name, ())  # type: ignore[return-value]


def named(payloads: Mapping[str, Payload]) -> dict[str, str]:
    """The name of each tag."""
    return {tag_id: cast(str, payload["name"]) for tag_id, payload in payloads.items()}


def _electorate(content_id: str, similar: Sequence[Hit]) -> list[Hit]:
    """Who may vote: never the content itself, and one vote a content, people's before the machine's.

    Asks the keys, which say both: to look into 80 payloads that lie apart cost as much as to count their votes.
    """
    own = {exemplar_key(content_id, "people"), exemplar_key(content_id, "machine")}
    others = [hit for hit in similar if hit.key not in own]
    if not any(decided_by_machine(hit) for hit in others):
        return others
    by_people = {hit.payload["id"] for hit in others if not decided_by_machine(hit)}
    return [hit for hit in others if not decided_by_machine(hit) or hit.payload["id"] not in by_people]


def _capped(weights: NDArray[np.float64], similar: Sequence[Hit]) -> NDArray[np.float64]:
    """Machine decisions never outvote people's: together they weigh at most as much as the people's together."""
    machine = np.array([decided_by_machine(hit) for hit in similar], dtype=bool)
    if not machine.any():
        return weights
    by_people, by_machine = float(weights[~machine].sum()), float(weights[machine].sum())
    if by_people == 0.0 or by_machine <= by_people:
        return weights
    return np.where(machine, weights * (by_people / by_machine), weights)


def decided_by_machine(hit: Hit) -> bool:
    """Whether nobody but this service decided about that exemplar."""
    return hit.key.endswith("/machine")
