"""Two memories on the same contents: P@1, and recall by tag frequency, with the interval of the difference."""

from dataclasses import replace

from tagbus.stream.app.comparing import compared, counts_of, lines
from tagbus.stream.contract.events import Evidence, Exemplar, ScoredTag, TaggedContent, Versions


def result(name: str, *tags: str) -> TaggedContent:
    found = tuple(
        ScoredTag(id=tag, name=tag, score=1, confidence=0.5, stage="recall", evidence=Evidence()) for tag in tags
    )
    return TaggedContent(
        id=name, tags=found, versions=Versions(release="r", taxonomy={}, calibration="none"), path=("recall",)
    )


TRUTH = {f"c{number}": frozenset({"often", "never"}) for number in range(40)}
COUNTS = {"often": 100, "sometimes": 10}


def test_recall_is_by_band_and_a_difference_has_its_interval() -> None:
    before = [result(name, "often") for name in TRUTH]
    after = [result(name, "often", *(["never"] if number % 2 else [])) for number, name in enumerate(TRUTH)]
    rows = {row.name: row for row in compared(before, after, TRUTH, COUNTS)}
    assert list(rows) == ["P@1", "R@10 all", "R@10 head", "R@10 tail", "R@10 new"]
    assert (rows["R@10 tail"].before, rows["R@10 tail"].after) == (0, 50)
    assert rows["R@10 new"] == replace(rows["R@10 tail"], name="R@10 new")
    assert rows["R@10 all"].after - rows["R@10 all"].before == 25
    assert 30 < rows["R@10 new"].low < 50 < rows["R@10 new"].high < 70
    for name in ("P@1", "R@10 head"):
        assert (rows[name].low, rows[name].high) == (0, 0)


def test_only_the_ten_best_count() -> None:
    before = [result("c0", *(f"t{number}" for number in range(10)), "often")]
    rows = {row.name: row for row in compared(before, before, {"c0": frozenset({"often"})}, COUNTS)}
    assert rows["R@10 head"].after == 0


def test_frequencies_are_of_peoples_exemplars() -> None:
    found = counts_of(
        [
            Exemplar(id="a", title="A", accepted=("x", "y")),
            Exemplar(id="b", title="B", accepted=("x",), source="machine"),
        ]
    )
    assert found == {"x": 1, "y": 1}


def test_a_line_a_figure() -> None:
    before, after = [result("c0", "x")], [result("c0", "often")]
    shown = list(lines(compared(before, after, {"c0": frozenset({"often"})}, COUNTS)))
    assert shown[0] == "figure       contents  before   after differs by  95% interval"
    assert shown[1] == "P@1                 1    0.00  100.00    +100.00  +100.00 to +100.00"
