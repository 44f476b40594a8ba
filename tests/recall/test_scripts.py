"""The normal form of a text, and its language, which it may not name."""

import pytest

from tagbus.stream.recall.scripts import language_of, normal


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bees", "Bees"),
        ("bee\u00adkeeping", "beekeeping"),
        ("\ufeffbees\u2060\u200d\ufe0f", "bees"),
        ("\u202eseeb\u202c", "seeb"),
        ("honey\u200bbees", "honey\u200bbees"),
        ("ﬁne cafe\u0301", "fine café"),
        ("cafe\u00ad\u0301", "café"),
    ],
)
def test_what_is_invisible_inside_a_word_does_not_end_it(text: str, expected: str) -> None:
    assert normal(text) == expected
