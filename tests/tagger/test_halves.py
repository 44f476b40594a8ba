"""A content that fails a step does not fail its neighbours: by halves, in recall, in the cross-encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import DependencyDown, FieldError, Untaggable
from tagbus.stream.rank.cross_encoder.model import untaggable
from tagbus.stream.rank.cross_encoder.pairs import Pair
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.pool import Floats
from tagbus.stream.tagger import Failure, Stage, Work
from tagbus.stream.tagger.halves import by_halves
from tests.tagger.ranking import Stages
from tests.tagger.test_rank import Longest, Turned, graph, unit

BAD = "the model chokes on this"


def work(key: str, text: str = "a text") -> Work:
    return Work(Content.model_construct(id=key, scopes=()), text=text, vector=unit(50))


def poison(stage: str) -> Untaggable:
    return Untaggable(stage, (FieldError("text", repr(BAD), "another text"),))


def failed(works: Sequence[Work]) -> dict[str, str]:
    """The stage that each content failed at, by its id."""
    return {one.content.id: one.outcome.error.stage for one in works if isinstance(one.outcome, Failure)}


async def run(stages: Sequence[Stage], works: Sequence[Work]) -> None:
    for stage in stages:
        await stage.run([one for one in works if one.outcome is None])


@given(bad=st.sets(st.integers(0, 19), max_size=4))
async def test_those_that_fail_alone_fail_and_all_others_pass_once(bad: set[int]) -> None:
    works = [work(str(number)) for number in range(20)]
    calls, passed = 0, list[str]()

    async def step(some: Sequence[Work]) -> None:
        nonlocal calls
        calls += 1
        if any(int(one.content.id) in bad for one in some):
            raise poison("step")
        passed.extend(one.content.id for one in some)

    await by_halves(works, step)

    assert failed(works) == {str(number): "step" for number in bad}
    assert sorted(passed, key=int) == [str(number) for number in range(20) if number not in bad]
    assert calls <= 1 + 2 * 5 * len(bad)


@pytest.mark.parametrize("error", [DependencyDown("away"), RuntimeError("a bug")])
async def test_an_error_that_is_not_a_contents_fault_is_raised(error: Exception) -> None:
    works = [work("a"), work("b")]

    async def step(_: Sequence[Work]) -> None:
        raise error

    with pytest.raises(type(error)):
        await by_halves(works, step)
    assert failed(works) == {}


@dataclass
class Chokes:
    """A recaller that cannot read one text."""

    name: str = "heads"

    async def recall(self, query: Query) -> list[Mapping[str, float]]:
        if BAD in query.texts:
            raise poison("encode")
        return [{"t5": 0.25} for _ in query.texts]


async def test_a_text_that_a_recaller_cannot_read_fails_alone() -> None:
    works = [work("a"), work("bad", BAD), work("c")]

    await run(Stages(await graph(), [Chokes()])._stages(10), works)

    assert failed(works) == {"bad": "encode"}
    assert [bool(one.candidates) for one in works] == [True, False, True]
    assert [one.path for one in works] == [["heads"], [], ["heads"]]


@dataclass
class Reads:
    """A cross-encoder that fails on pairs with one text."""

    name: str = "reads"
    read: list[Pair] = field(default_factory=list)

    async def rate(self, pairs: Sequence[Pair]) -> Floats:
        for pair in pairs:
            if pair[1] == BAD:
                raise untaggable(pair, "out of bounds")
        self.read += pairs
        return np.zeros(len(pairs), np.float32)


async def test_a_content_that_the_cross_encoder_fails_on_fails_alone() -> None:
    works = [work("a"), work("b"), work("bad", BAD)]
    reads = Reads()

    await run(Stages(await graph(), [], Longest(), reads, Turned())._stages(10), works)

    assert failed(works) == {"bad": "cross_encoder"}
    assert isinstance(works[2].outcome, Failure)
    assert "expected a text that the cross-encoder takes beside the tag 'tag" in str(works[2].outcome.error)
    assert [len(one.candidates) > 0 for one in works] == [True, True, False]
    assert {text for _, text in reads.read} == {"a text"}
