"""What a release gets of what was trained, and in what words."""

from tagbus.models.auto.selection import Gain, Measured, Selection, chosen
from tagbus.models.auto.verdict import FIGURES, Verdict

ROW = dict.fromkeys(FIGURES, 1.0)


def gain(mean: float, low: float, high: float) -> Gain:
    return Gain(goal="ndcg_at_5", mean=mean, low=low, high=high)


def row(figure: float, found: Gain | None, *parts: str) -> Measured:
    return Measured(name=" + ".join(parts) or "memory alone", parts=parts, figure=figure, gain=found)


ALONE = row(40.0, None)
HEADS = row(42.0, gain(2.0, 1.0, 3.0), "heads")


def test_the_best_row_that_is_proven_to_gain_is_taken() -> None:
    assert chosen([ALONE, HEADS, row(45.0, gain(5.0, 3.0, 7.0), "heads", "ranker")]) == ("heads", "ranker")


def test_a_row_that_may_have_gained_by_chance_is_not_taken() -> None:
    assert chosen([ALONE, HEADS, row(45.0, gain(5.0, -0.1, 10.0), "heads", "ranker")]) == ("heads",)
    assert chosen([ALONE, row(39.0, gain(-1.0, -2.0, 0.0), "heads")]) == ()


def test_it_says_why() -> None:
    rows = (ALONE, HEADS)
    said = list(Selection(goal="ndcg_at_5", contents=600, rows=rows, parts=("heads",)).lines())
    assert said == [
        "on 600 validation contents: memory alone: nDCG@5 40.00",
        "on 600 validation contents: heads: nDCG@5 42.00, +2.00 points of nDCG@5 (95% +1.00 to +3.00)",
        "taken: heads: the best row whose gain has an interval above zero",
    ]
    nothing = list(Selection(goal="ndcg_at_5", contents=600, rows=rows, parts=()).lines())
    assert nothing[-1] == "taken: memory alone, since nothing that was trained is proven to gain"
    unmeasured = Selection(goal="ndcg_at_5", contents=0, rows=(), parts=("heads",))
    assert list(unmeasured.lines()) == ["there are no validation contents to choose by: all that was trained is taken"]


def last(found: Verdict) -> str:
    return list(found.lines())[-1]


def test_the_verdict_says_whether_the_release_is_better() -> None:
    for found, words in (
        (gain(2.0, 0.5, 3.0), "better than memory alone: +2.00 points of nDCG@5 (95% +0.50 to +3.00)"),
        (gain(-2.0, -3.0, -0.5), "worse than memory alone, do not activate it: -2.00"),
        (gain(0.5, -1.0, 2.0), "not proven to be better than memory alone: +0.50"),
    ):
        assert last(Verdict(parts=("heads",), untrained=ROW, trained=ROW, gain=found)).startswith(words)
    assert last(Verdict(parts=(), untrained=ROW)).startswith("no trained part was taken")
    assert last(Verdict(parts=("heads",))).startswith("there are no test contents")
