"""Curves by frequency, language and length, and how they are drawn."""

import numpy as np

from tagbus.stream.app.mistakes.curves import bins_of, curves, language
from tagbus.stream.app.mistakes.drawing import draw
from tagbus.stream.contract.events import Content
from tagbus.stream.intervals import of_mean
from tests.app.mistakes.toy import evaluated, tagged


def test_bins_are_named_by_their_ends() -> None:
    assert bins_of((0, 1, 3, 10)) == ["0", "1-2", "3-9", "10+"]


def test_recall_and_precision_by_how_many_contents_in_memory_have_the_tag() -> None:
    contents = [tagged("1", "new,rare", {"rare": 0.9, "common": 0.5}), tagged("2", "rare", {"common": 0.9})]
    (recall, precision), *_ = curves(evaluated(contents, {"rare": 2, "common": 2000}))
    assert [(point.bin, point.count, point.mean) for point in recall.points] == [("0", 1, 0.0), ("1-2", 2, 50.0)]
    assert [(point.bin, point.count, point.mean) for point in precision.points] == [
        ("1-2", 1, 100.0),
        ("1000+", 2, 0.0),
    ]
    # Of two values, 0 and 1, one in four samples holds the same twice.
    assert (recall.points[1].low, recall.points[1].high) == (0.0, 100.0)


def test_the_interval_of_a_mean_is_the_one_of_other_figures() -> None:
    contents = [tagged(str(number), "a", {"a" if number % 4 else "b": 0.9}) for number in range(200)]
    *_, long = curves(evaluated(contents))
    (point,) = long[0].points
    low, high = of_mean(np.array([100.0 * bool(number % 4) for number in range(200)]))
    assert (point.mean, point.low, point.high) == (75.0, low, high)


def test_contents_by_language_and_by_length() -> None:
    contents = [
        tagged("1", "a", {"a": 0.9}, language="de", title="Bienen"),
        tagged("2", "a", {"b": 0.9, "a": 0.8}, language="en", title="Bees on the roofs of the city"),
        tagged("3", "a", {"b": 0.9}, language="en", title="Bees"),
    ]
    _, spoken, long = curves(evaluated(contents))
    assert [[(point.bin, point.mean) for point in one.points] for one in spoken] == [
        [("en", 0.0), ("de", 100.0)],
        [("en", 50.0), ("de", 100.0)],
    ]
    assert [(point.bin, point.count) for point in long[0].points] == [("1-3", 2), ("4-7", 1)]


def test_a_content_that_names_no_language_counts_by_its_script() -> None:
    assert language(Content(id="c", title="Bees", language="en-GB")) == "en"
    assert language(Content(id="c", title="1", text="Пчёлы")) == "Cyrillic"


def test_a_drawing_stays_within_its_box_and_joins_its_points_from_left_to_right() -> None:
    contents = [
        tagged(f"{number}", "a", {"a" if number % 3 else "b": 0.9}, title="word " * number) for number in range(1, 90)
    ]
    *_, long = curves(evaluated(contents))
    drawing = draw(long, [point.bin for point in long[0].points])
    for line in drawing.lines:
        across = [mark.x for mark in line.marks]
        assert across == sorted(across)
        assert all(drawing.left < x < drawing.right for x in across)
        assert all(0 < mark.high <= mark.y <= mark.low <= drawing.bottom for mark in line.marks)
        assert len(line.path.split()) == len(line.marks)
