"""When a new release is better than the one in force."""

import numpy as np
import pytest

from tagbus.models.auto.comparison import UNFOUND, Change, Comparison, loss_of
from tagbus.models.auto.selection import Gain
from tagbus.stream.contract.events import Exemplar
from tests.models.auto.test_single import result


def comparison(
    ndcg: tuple[float, float] = (-1, 1),
    loss: tuple[float, float] = (-1, 1),
    new: tuple[float, float, float] | None = None,
) -> Comparison:
    """Intervals of what the new one gains; of new tags R@10 after 50 before, and the interval."""
    return Comparison(
        active="old-1",
        contents=100,
        ndcg=Gain(goal="ndcg_at_5", mean=sum(ndcg) / 2, low=ndcg[0], high=ndcg[1]),
        loss=Change(before=0.5, after=0.4, low=loss[0], high=loss[1]),
        new_tags=None if new is None else Change(before=50.0, after=new[0], low=new[1], high=new[2]),
    )


@pytest.mark.parametrize(
    "found",
    [
        comparison(ndcg=(0.1, 2)),
        comparison(loss=(0.1, 2)),
        comparison(ndcg=(0.1, 2), new=(49.5, -4.0, 3.0)),
        comparison(ndcg=(0.1, 2), new=(55.0, 1.0, 9.0)),
    ],
)
def test_a_figure_that_is_proven_to_improve_is_enough(found: Comparison) -> None:
    assert list(found.problems()) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (comparison(), "neither nDCG@5 nor the log loss is proven to improve"),
        (comparison(ndcg=(0.0, 0.0), loss=(0.0, 0.0)), "neither nDCG@5 nor the log loss is proven to improve"),
        (comparison(ndcg=(-3, -1), loss=(0.1, 2)), "nDCG@5 is proven to fall"),
        (comparison(ndcg=(1, 3), loss=(-2, -0.1)), "the log loss is proven to rise"),
        (comparison(ndcg=(1, 3), new=(45.0, -12.0, 1.0)), "new tags lose: R@10 50.00 to 45.00"),
        (comparison(ndcg=(1, 3), new=(49.9, -0.3, -0.01)), "new tags lose: R@10 50.00 to 49.90"),
    ],
)
def test_what_stands_against_it_is_said(found: Comparison, words: str) -> None:
    assert list(found.problems()) == [words]


def test_the_log_loss_is_over_what_was_decided_and_what_either_finds() -> None:
    item = Exemplar(id="1", text="x", accepted=("a",), rejected=("b",))
    before, after = result("1", ("a", 0.5), ("c", 0.25)), result("1", ("a", 0.8), ("b", 0.5))
    found = loss_of([before], [after], [item])
    assert found.before == pytest.approx(-np.mean(np.log([0.5, 1 - UNFOUND, 0.75])))
    assert found.after == pytest.approx(-np.mean(np.log([0.8, 0.5, 1 - UNFOUND])))


def test_it_is_said_in_words() -> None:
    assert list(comparison(ndcg=(1, 3), new=(52.0, -1.0, 5.0)).lines()) == [
        "on the 100 newest decided contents, against old-1: +2.00 points of nDCG@5 (95% +1.00 to +3.00)",
        "log loss 0.5000 to 0.4000 (95% of its fall -1.0000 to +1.0000)",
        "new tags: R@10 50.00 to 52.00 (95% of its rise -1.00 to +5.00)",
    ]
    assert list(comparison().lines())[-1] == "no content of them has a new tag"
