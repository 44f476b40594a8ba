"""Examine a tagged content: what found each tag, and where each unpublished one was cut.

Nothing is decided here: the results that the stages left in `Work` are compared with the settings that applied.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Final

import numpy as np

from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.explain.explanation import (
    Around,
    Candidate,
    Cut,
    Explanation,
    Hidden,
    Knowledge,
    Listed,
)
from tagbus.stream.contract.events import Neighbour
from tagbus.stream.memory.kinds import tag_text
from tagbus.stream.memory.scopes import replaced_by, strings
from tagbus.stream.memory.store import Payload
from tagbus.stream.recall.graph import Found, named, names_by_content
from tagbus.stream.recall.neighbours import Reach, Seen, neighbour, texts
from tagbus.stream.tagger import Explained, Work
from tagbus.stream.tagger.rank import seen_by
from tagbus.stream.tagger.work import LEARNT

# All that a ranking holds.
EVERY: Final = 1_000_000


async def examine(stack: TaggingStack, found: Explained, asked: Sequence[str] = ()) -> Explanation:
    """The explanation of a content that went through all stages; `asked`: tags to include in any case.

    Raises DependencyDown if a store does not answer.
    """
    work = found.work
    seen = seen_by(work)
    around = await stack.memory.exemplars.fetch(seen.near.keys.tolist())
    carried = _carried(stack, seen, around)
    voters: dict[str, list[int]] = {}
    for place, tags_of in enumerate(carried):
        for tag in tags_of:
            voters.setdefault(tag, []).append(place)
    listed = chain.from_iterable(work.found.values())
    tags = sorted({*seen.direct.keys.tolist(), *voters, *seen.accepted, *listed, *asked})
    known = await stack.memory.tags.fetch(tags)
    replaced = {tag: successors for tag, payload in known.items() if (successors := replaced_by(payload))}
    facts = {tag: payload for tag, payload in known.items() if tag not in replaced}
    view = _View(stack, work, seen, facts, replaced, voters, await _similarities(stack, work, facts, asked))
    result = found.result
    return Explanation(
        id=result.id,
        title=work.content.title or work.content.text[:200],
        scopes=result.scopes,
        versions=result.versions,
        scored_by=work.scoring,
        path=result.path,
        degraded=result.degraded,
        parameters=_parameters(stack),
        candidates=tuple(view.candidate(tag) for tag in view.ordered(tags)),
        neighbours=tuple(_neighbours(stack, seen, carried, around, named(facts))),
        knowledge=tuple(
            Knowledge(id=one.id, kind=one.kind, title=one.title, text=one.text, similarity=one.similarity)
            for one in work.knowledge
        ),
        hidden=await _hidden(stack, work, seen),
    )


class _View:
    """Answers questions about the candidates of one content."""

    def __init__(
        self,
        stack: TaggingStack,
        work: Work,
        seen: Seen,
        facts: Mapping[str, Payload],
        replaced: Mapping[str, Sequence[str]],
        voters: Mapping[str, Sequence[int]],
        similarities: Mapping[str, float],
    ) -> None:
        """`facts`: of the tags in force; `replaced`: the successors of those that others replace."""
        self._settings = stack.settings
        self._fitted = stack.graph.fitted
        self._work, self._seen, self._facts, self._voters = work, seen, facts, voters
        self._replaced = replaced
        self._lists = {one.name: one.lists[0] for one, _ in stack.components.on if one.lists}
        self._names = names_by_content(facts, 1, [work.scopes])[0]
        self._direct = {key: place for place, key in enumerate(seen.direct.keys.tolist())}
        self._similarities = similarities
        ranking = Found() if work.ranking is None else work.ranking.best(EVERY)
        ranked = sorted((-score, tag) for tag, score in ranking.scores.items() if self._may_be_shown(tag))
        self._scores = {tag: -score for score, tag in ranked}
        self._places = {tag: place for place, (_, tag) in enumerate(ranked, start=1)}
        self._published = {tag.id: tag for tag in work.tags}
        self._selected = {one.id for one in work.candidates}

    def ordered(self, tags: Sequence[str]) -> list[str]:
        """The published tags, then the rest in rank order, then those that were cut before ranking."""
        published = list(self._published)
        ranked = [tag for tag in self._places if tag not in self._published]
        left = [tag for tag in tags if tag not in self._published and tag not in self._places]
        return [*published, *ranked, *sorted(left, key=self._nearness)]

    def candidate(self, tag: str) -> Candidate:
        """Everything known about a tag."""
        published = self._published.get(tag)
        voters = self._voters.get(tag, ())
        near = self._seen.near
        listed = dict(self._listed(tag))
        return Candidate(
            id=tag,
            name=named({tag: self._facts[tag]})[tag] if tag in self._facts else None,
            found_by=tuple(self._found_by(tag, listed)),
            similarity=self._similarity(tag),
            votes=len(voters),
            neighbours=tuple(neighbour(near.keys[place], float(near.scores[place])) for place in voters[:3]),
            components=listed,
            place=self._places.get(tag),
            score=self._scores.get(tag),
            confidence=None if published is None else published.confidence,
            features=self._features(tag),
            cut=None if published is not None else self._cut(tag),
        )

    def _may_be_shown(self, tag: str) -> bool:
        return tag in self._names and tag not in self._seen.rejected

    def _nearness(self, tag: str) -> tuple[float, str]:
        nearest = [
            self._similarity(tag) or -1.0,
            *(float(self._seen.near.scores[one]) for one in self._voters.get(tag, ())),
        ]
        return -max(nearest), tag

    def _similarity(self, tag: str) -> float | None:
        place = self._direct.get(tag)
        return self._similarities.get(tag) if place is None else round(float(self._seen.direct.scores[place]), 4)

    def _listed(self, tag: str) -> "list[tuple[str, Listed]]":
        found = []
        for component, name in self._lists.items():
            listing = self._work.found.get(name, {})
            if tag in listing:
                matched = getattr(listing, "names", {}).get(tag)
                place = list(listing).index(tag) + 1
                found.append((component, Listed(score=round(listing[tag], 4), place=place, matched=matched)))
        return found

    def _found_by(self, tag: str, listed: Mapping[str, Listed]) -> list[str]:
        ways = {"people": tag in self._seen.accepted, "C2T": tag in self._direct, "C2C2T": tag in self._voters}
        return [*(way for way, there in ways.items() if there), *listed]

    def _features(self, tag: str) -> dict[str, float | None] | None:
        ranking = self._work.ranking
        found = None if ranking is None or tag not in self._places else ranking.features(tag)
        if found is None:
            return None
        # A ranker's unknown values are NaN, which JSON does not have.
        return {name: None if math.isnan(value) else round(value, 6) for name, value in found.items()}

    def _cut(self, tag: str) -> Cut:
        """Where an unpublished tag was left out."""
        tagger = self._settings.tagger
        if tag in self._replaced:
            others = ", ".join(self._replaced[tag])
            return Cut(stage="rank", reason=f"it is not in force: retired, replaced by {others}")
        if tag not in self._facts:
            return Cut(stage="rank", reason="it is not in force: retired, or not on the topic of tags yet")
        if tag not in self._names:
            own, ours = strings(self._facts[tag].get("scopes")), sorted(self._work.scopes)
            return Cut(
                stage="rank",
                reason=f"scopes: it is for {', '.join(sorted(own))}; the content has {', '.join(ours) or 'none'}",
            )
        if tag in self._seen.rejected:
            return Cut(stage="rank", reason="people rejected it for this content")
        if tag in self._selected:
            return Cut(
                stage="calibrate", reason=f"confidence below tagger.least_confidence {tagger.least_confidence:g}"
            )
        if tag in self._places:
            return Cut(stage="select", reason=f"place {self._places[tag]}, tagger.tags is {tagger.tags}")
        if self._work.ranking is not None and self._work.ranking.stage == LEARNT:
            return Cut(stage="rank", reason="not among the best of the lists and votes, which the ranker scores")
        return Cut(stage="recall", reason="; ".join(self._below(tag)))

    def _below(self, tag: str) -> "list[str]":
        """Why neither meta-path gave the tag; for pipelines without a learnt ranker."""
        fitted, reasons = self._fitted, []
        if (similarity := self._similarity(tag)) is not None:
            place = self._direct.get(tag)
            if similarity < fitted.c2t_threshold:
                reasons.append(f"C2T: similarity {similarity:.4g} < recall.c2t_threshold {fitted.c2t_threshold:g}")
            elif place is None:
                reasons.append(f"C2T: not among the {len(self._seen.direct)} most similar tags (recall.tag_keys)")
            elif place >= fitted.c2t_limit:
                reasons.append(f"C2T: place {place + 1} by similarity, recall.c2t_limit is {fitted.c2t_limit}")
        if voters := self._voters.get(tag):
            nearest = float(self._seen.near.scores[voters[0]])
            if nearest < fitted.c2c_threshold:
                reasons.append(
                    f"C2C2T: nearest neighbour {nearest:.4g} < recall.c2c_threshold {fitted.c2c_threshold:g}"
                )
            else:
                reasons.append(f"C2C2T: its votes are not among the recall.c2c2t_limit {fitted.c2c2t_limit} largest")
        return reasons or ["no recaller gave it"]


def _carried(stack: TaggingStack, seen: Seen, around: Mapping[str, Payload]) -> list[list[str]]:
    """The tags of each neighbour: those that it votes for, and those that are retired or hidden from this content."""
    near, ids = seen.near, stack.graph.numbers.ids
    found = []
    for key, (start, end) in zip(near.keys.tolist(), pairwise(near.tag_starts.tolist()), strict=True):
        votes = [ids[tag] for tag in near.tags[start:end].tolist()]
        found.append(list(dict.fromkeys([*votes, *texts(around.get(key, {}), "accepted")])))
    return found


async def _similarities(
    stack: TaggingStack, work: Work, facts: Mapping[str, Payload], asked: Sequence[str]
) -> dict[str, float]:
    """The cosine of the content and each requested tag in force; recall may not have looked at all of them."""
    tags = [tag for tag in asked if tag in facts]
    if not tags or work.vector is None:
        return {}
    vectors = await stack.encoder.encode([tag_text(stack.release, facts[tag]) for tag in tags])
    return {tag: round(float(vector @ work.vector), 4) for tag, vector in zip(tags, vectors, strict=True)}


def _neighbours(
    stack: TaggingStack,
    seen: Seen,
    carried: Sequence[Sequence[str]],
    around: Mapping[str, Payload],
    names: Mapping[str, str],
) -> Iterator[Around]:
    near, least = seen.near, stack.graph.fitted.c2c_threshold
    for key, similarity, tags in zip(near.keys.tolist(), near.scores.tolist(), carried, strict=True):
        one: Neighbour = neighbour(key, similarity)
        payload = around.get(key, {})
        yield Around(
            id=one.id,
            source=one.source,
            title=str(payload.get("title") or payload.get("text") or "")[:200],
            similarity=one.similarity,
            counts=similarity >= least,
            tags={tag: names.get(tag) for tag in tags},
        )


async def _hidden(stack: TaggingStack, work: Work, seen: Seen) -> Hidden:
    """Search again without scopes: results that displace ones visible to the content are hidden from it."""
    reach = Reach(max(1, len(seen.direct)), max(1, len(seen.near)))
    vectors = np.array([work.vector], np.float32)
    [every] = await stack.graph.look([work.content.id], vectors, reach, None)
    return Hidden(
        tags=len(set(every.direct.keys.tolist()) - set(seen.direct.keys.tolist())),
        exemplars=len(set(every.near.keys.tolist()) - set(seen.near.keys.tolist())),
    )


def _parameters(stack: TaggingStack) -> dict[str, float | bool | None]:
    recall, tagger = stack.settings.recall, stack.settings.tagger
    knowledge = stack.settings.knowledge
    fitted = {f"recall.{name}": value for name, value in stack.graph.fitted.model_dump(by_alias=True).items()}
    return {
        "recall.c2t": recall.c2t,
        "recall.c2c2t": recall.c2c2t,
        **fitted,
        "tagger.tags": tagger.tags,
        "tagger.least_confidence": tagger.least_confidence,
        "knowledge.segments": knowledge.segments,
        "knowledge.threshold": stack.release.recall.c2t_threshold
        if knowledge.threshold is None
        else knowledge.threshold,
    }
