"""The language of a text, which may not name one."""

import pytest

from tagbus.stream.recall.scripts import language_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bees", "Latin"),
        ("Пчёлы", "Cyrillic"),
        ("蜂", "Cjk"),
        ("மீன்", "Tamil"),
        ("Bees и", "Latin"),
        ("123", "other"),
        ("", "other"),
    ],
)
def test_a_text_whose_language_is_not_named_has_the_script_of_most_of_its_first_letters(
    text: str, expected: str
) -> None:
    assert language_of(None, text) == expected


@pytest.mark.parametrize("given", ["de", "DE", "de-AT", "de_CH"])
def test_a_region_makes_no_other_language(given: str) -> None:
    assert language_of(given, "Пчёлы") == "de"


def test_of_a_long_text_the_beginning_counts() -> None:
    assert language_of(None, "Bees in the city of the north, and more " + "Пчёлы " * 100_000) == "Latin"
