"""Broader tags: in evidence, left out, or added, by a setting."""

import logging
from collections.abc import Mapping, Sequence

import pytest

from tagbus.stream.config import RecallSettings
from tagbus.stream.contract.events import Evidence, ScoredTag
from tagbus.stream.memory import Point
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.taxonomy import standing
from tagbus.stream.tagger import Work
from tagbus.stream.tagger.hierarchy import WithBroader, WithoutBroader
from tagbus.stream.tagger.select import Select
from tests.recall.taxonomy.test_standing import holding, unit
from tests.tagger.pipeline import content
from tests.tagger.ranking import Stages
from tests.tagger.test_rank import FITTED, Says

# Each tag with its parents, and the scopes of one.
TAXONOMY: Mapping[str, Sequence[str]] = {
    "optics": ["physics"],
    "physics": ["science"],
    "science": [],
    "lenses": ["optics", "secret"],
    "secret": ["science"],
    "old": [],
    "cats": ["old"],
    "animals": [],
}


async def graph() -> GraphRecall:
    memory = await holding({})
    await memory.tags.upsert(
        [
            Point(
                key,
                unit(number),
                {
                    "name": f"name of {key}",
                    "parents": [*parents],
                    "scopes": ["bob"] if key == "secret" else [],
                    "replaced_by": ["animals"] if key == "old" else [],
                },
            )
            for number, (key, parents) in enumerate(TAXONOMY.items())
        ]
    )
    return GraphRecall(memory.tags, memory.exemplars, FITTED, RecallSettings(c2t=False))


async def evidence(over: GraphRecall, *found: str, scopes: str = "ann") -> dict[str, tuple[str, ...]]:
    """The broader tags in the evidence of each of these."""
    heads = Says("heads", {tag: 1 / (n + 1) for n, tag in enumerate(found)})
    (candidates,) = await Stages(over, [heads]).recall(["c"], ["text"], unit(1)[None], 10, [frozenset({scopes})])
    return {one.id: one.evidence.broader for one in candidates}


def scored(tag: str, confidence: float, broader: Sequence[str] = (), *, decided: bool = False) -> ScoredTag:
    said = Evidence(broader=tuple(broader), decided=decided)
    return ScoredTag(id=tag, name=tag, score=confidence / 2, confidence=confidence, stage="rank", evidence=said)


def work(*tags: ScoredTag) -> Work:
    made = Work(content("c", "text"))
    made.tags = tags
    return made


async def test_evidence_names_the_broader_ones_among_the_best_nearest_first() -> None:
    over = await graph()

    assert await evidence(over, "science", "lenses", "physics") == {
        "science": (),
        "lenses": ("physics", "science"),
        "physics": ("science",),
    }


async def test_an_invisible_broader_tag_is_not_named_and_a_replaced_one_is_its_successor() -> None:
    over = await graph()

    assert await evidence(over, "lenses", "secret", "cats", "animals") == {
        "lenses": (),
        "cats": ("animals",),
        "animals": (),
    }
    assert (await evidence(over, "lenses", "secret", scopes="bob"))["lenses"] == ("secret",)


async def test_a_changed_parent_counts_immediately() -> None:
    over = await graph()
    found = []
    for parents in (["physics"], ["animals"], []):
        changed = {"optics": {"name": "optics", "parents": parents}}
        await over._tags.set_payloads(changed)
        await over.standing.change(changed)
        # Twice: the second time it is remembered.
        found += [(await evidence(over, "optics", "physics", "animals"))["optics"] for _ in range(2)]

    assert found == [("physics",)] * 2 + [("animals",)] * 2 + [()] * 2


async def test_a_parent_that_is_retired_counts_as_its_successor_immediately() -> None:
    over = await graph()
    before = await evidence(over, "optics", "physics", "animals")
    retired = {"physics": {"name": "physics", "replaced_by": ["animals"]}}
    await over._tags.set_payloads(retired)
    await over.standing.change(retired)

    assert before["optics"] == ("physics",)
    assert (await evidence(over, "optics", "animals"))["optics"] == ("animals",)


async def test_broader_tags_are_followed_anew_where_too_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "REMEMBERED", 1)
    over = await graph()

    for _ in range(2):
        found = await evidence(over, "lenses", "optics", "physics", "science")
        assert found["lenses"] == ("optics", "physics", "science")
        assert found["optics"] == ("physics", "science")


async def test_broader_tags_are_left_out_unless_people_accepted_them() -> None:
    one = work(
        scored("science", 0.9), scored("physics", 0.8, decided=True), scored("optics", 0.7, ["physics", "science"])
    )

    await WithoutBroader().run([one])

    assert [tag.id for tag in one.tags] == ["physics", "optics"]


async def test_tags_that_are_broader_than_each_other_are_not_left_out() -> None:
    """A circle is a mistake of the taxonomy, not a reason to return none of its tags."""
    circle = scored("a", 0.9, ["b", "above"]), scored("b", 0.8, ["a", "above"])
    one = work(*circle, scored("above", 0.7), scored("below", 0.6, ["above"]))

    await WithoutBroader().run([one])

    assert [tag.id for tag in one.tags] == ["a", "b", "below"]


async def test_broader_tags_are_added_with_the_confidence_of_the_surest_below() -> None:
    over = await graph()
    await over.standing.learn_broader(TAXONOMY)
    one = work(scored("optics", 0.9), scored("cats", 0.8), scored("lenses", 0.7))

    await WithBroader(over).run([one])

    found = {tag.id: tag for tag in one.tags}
    assert list(found) == ["optics", "physics", "science", "cats", "animals", "lenses"]
    added = found["science"]
    assert (added.name, added.confidence, added.score, added.stage) == ("name of science", 0.9, 0.45, "hierarchy")
    assert added.evidence.narrower == ("optics", "lenses")
    assert found["animals"].evidence.narrower == ("cats",)


async def test_a_circle_is_logged_once_and_gives_a_tag_no_broader_self(caplog: pytest.LogCaptureFixture) -> None:
    over = await graph()
    changed = {"science": {"name": "science", "parents": ["optics", "science"]}}
    await over.standing.change(changed)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (await evidence(over, "science", "optics"))["science"] == ("optics",)

    assert [line for line in caplog.messages if "science" in line] == [
        "the tag 'science' is among its own broader tags, which is not followed"
    ]


async def test_select_looks_up_nothing_without_a_hierarchy() -> None:
    """The usual flat taxonomy costs no extra request."""
    over = await graph()
    await over.standing.learn_broader(["animals"])
    one = work()

    await Select(over, {}, 10).run([one])

    assert one.candidates == []
