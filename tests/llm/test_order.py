"""The order of the tags in a request: a tag's place says nothing about its rank, so a judge that favours a place gains
nothing by that."""

from collections.abc import Sequence

import numpy as np
import pytest

from tagbus.stream.config import LlmSettings
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.llm.base import Answer, Asked, Backend, Question
from tagbus.stream.llm.client import Tally
from tagbus.stream.llm.judge import LlmJudge
from tagbus.stream.llm.open import prompts_of
from tagbus.stream.llm.prompts import Rendered
from tagbus.stream.llm.prompts.order import in_requests, shuffled
from tagbus.stream.llm.prompts.show import shown
from tagbus.stream.llm.worth import fusion
from tagbus.stream.llm.worth.fusion import Pairs
from tagbus.stream.logistic import Flags, Floats, sigmoid
from tests.llm import answers
from tests.llm.asking import asked, directly
from tests.llm.scripted import routed, serving

CONTENTS = 400
TAGS = 5
PATH = Fingerprint("mini-1", "recall+judge", {"judge": "vllm-abc"})


def contents() -> tuple[list[Asked], Floats, Flags]:
    """Contents whose best candidate is right more often than its score says, as a lead over the others does: scores and
    whether a tag is right, [contents, tags], best first."""
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.uniform(0.1, 0.5, (CONTENTS, TAGS)), axis=1)
    right = rng.random((CONTENTS, TAGS)) < scores * np.array([1.6, *[0.5] * (TAGS - 1)])
    names = [[f"{'right' if one else 'wrong'} {place}" for place, one in enumerate(row)] for row in right]
    return [asked(*row, content_id=f"c{n}") for n, row in enumerate(names)], scores, right


class Favouring:
    """A judge that hears the right tags with noise, and favours the one that is shown first."""

    backend: Backend = "decision_api"
    at_once = TAGS

    def __init__(self, bias: float, distance: float = 0.0) -> None:
        self._bias = bias
        self._distance = distance
        self._rng = np.random.default_rng(1)

    def beside(self, questions: Sequence[Question]) -> int:
        return 100

    async def ask(
        self, rendered: Rendered, questions: Sequence[Question], deadline: float, tally: Tally
    ) -> list[Answer]:
        heard = self._rng.standard_normal(len(questions))
        heard += [self._distance * one.name.startswith("right") for one in questions]
        heard[0] += self._bias
        return [Answer(value) for value in sigmoid(heard - 1).tolist()]


async def weight_of(asking: Favouring) -> float:
    known, scores, right = contents()
    settings = LlmSettings(url="http://127.0.0.1:9/v1")
    judged = await LlmJudge(asking, prompts_of(settings), settings).judge(known)
    said = np.array([[one.probability for one in content.answers] for content in judged], np.float64)
    pairs = Pairs(scores.ravel(), said.ravel(), right.ravel(), np.repeat(np.arange(CONTENTS), TAGS))
    fit = fusion.fit(pairs, PATH).judge
    assert fit is not None
    return fit.weight


async def test_a_judge_that_only_favours_the_first_tag_has_no_weight() -> None:
    assert await weight_of(Favouring(3.0)) == 0


async def test_a_judge_that_favours_the_first_tag_and_tells_right_from_wrong_keeps_its_weight() -> None:
    assert await weight_of(Favouring(1.0, distance=2.0)) > 0.2


@pytest.mark.parametrize("backend", ["decision_api", "stated"])
async def test_the_questions_of_a_request_are_shuffled_and_the_order_is_recorded(backend: Backend) -> None:
    names = [f"Tag {n}" for n in range(8)]
    script = routed(decisions=answers.openai_decisions(), completions=answers.chat())
    with serving(script) as server:
        async with directly(server.url, backend, profile="openai") as judge:
            (judged,) = await judge.judge([asked(*names)])
    (request,) = server.requests
    order = shuffled(asked(*names))
    assert judged.asked_in == order != tuple(range(8))
    assert all(one.probability is not None for one in judged.answers)
    sent = request.raw.decode()
    assert [sent.index(f"Tag {at}") for at in order] == sorted(sent.index(name) for name in names)
    # `tagbus prompt show` shows them so too.
    settings = LlmSettings(url=server.url, profile="openai", backend=backend)
    seen = "".join(part.text for part in shown(asked(*names), prompts_of(settings), settings).questions)
    assert [seen.index(f"Tag {at}") for at in order] == sorted(seen.index(name) for name in names)


async def test_each_answer_belongs_to_its_tag_whatever_the_order() -> None:
    names = [f"Tag {n}" for n in range(8)]
    script = routed(decisions=answers.openai_decisions(lambda text: int(text.partition("Tag ")[2][0]) / 10))
    with serving(script) as server:
        async with directly(server.url, "decision_api", profile="openai") as judge:
            (judged,) = await judge.judge([asked(*names)])
    assert [one.probability for one in judged.answers] == [n / 10 for n in range(8)]


def test_the_best_tags_are_in_the_first_request() -> None:
    parts = in_requests(shuffled(asked(*map(str, range(25)))), range(25), 10)
    assert [sorted(part) for part in parts] == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
    assert parts[0] != sorted(parts[0])


def test_tags_asked_one_at_a_time_go_best_first() -> None:
    assert in_requests(shuffled(asked(*"abcde")), {0, 2, 3}, 1) == [[0], [2], [3]]
