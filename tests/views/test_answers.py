"""The API's answers from a row: contiguous pages, hopping windows, and an error for each wrong parameter."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tagbus.stream.config import ViewsSettings
from tagbus.stream.errors import UserError
from tagbus.stream.views import answers
from tagbus.stream.views.answers import ContentsPage, TogetherPage
from tagbus.stream.views.tags import TagRow

SETTINGS = ViewsSettings(step_seconds=3600, window_seconds=(7200, 14_400))
HOUR = 3600


def row(count: int) -> TagRow:
    found = {f"c{number:02}": (number % 5 / 10, number // 3 * 1000) for number in range(count)}
    together = {f"t{number}": number // 2 for number in range(count)}
    return TagRow(name="N", count=count, contents=found, together=together)


@pytest.mark.parametrize("order", ["newest", "confidence"])
def test_pages_of_contents_fit_together(order: answers.Order) -> None:
    given = row(17)
    found = read(lambda after: answers.contents(given, order, 100, 4, after))
    assert found == [one.id for one in answers.contents(given, order, 100, 1000, None).items]
    assert sorted(found) == sorted(given.contents)


def test_pages_of_other_tags_fit_together() -> None:
    given = row(9)
    assert read(lambda after: answers.together(given, 2, after)) == sorted(
        given.together, key=lambda one: (-given.together[one], one)
    )


def read(page: Callable[[str | None], ContentsPage | TogetherPage]) -> list[str]:
    found, after = list[str](), None
    while True:
        one = page(after)
        found += [item.id for item in one.items]
        after = one.next
        if after is None:
            return found


def test_a_page_continues_after_its_last_item_even_if_that_is_removed() -> None:
    given = row(10)
    first = answers.contents(given, "newest", 100, 4, None)
    for one in first.items:
        del given.contents[one.id]
    second = answers.contents(given, "newest", 100, 100, first.next)
    assert {one.id for one in second.items} == set(given.contents)


def test_a_list_that_left_something_out_says_so() -> None:
    given = row(10)
    assert answers.contents(given, "newest", 10, 5, None).whole
    assert not answers.contents(given, "newest", 9, 5, None).whole
    given.contents_whole = False
    assert not answers.contents(given, "newest", 10, 5, None).whole
    given.together_whole = False
    assert not answers.together(given, 5, None).whole


def test_windows_hop_by_a_step_and_say_how_they_grow() -> None:
    now = 100 * HOUR + 60
    given = TagRow(steps={100 * HOUR: 1, 99 * HOUR: 4, 98 * HOUR: 2, 97 * HOUR: 1})
    found = answers.windows(given, SETTINGS, 7200, now, 3, None)
    assert [one.end for one in found.items] == [datetime.fromtimestamp(hour * HOUR, UTC) for hour in (101, 100, 99)]
    assert [one.contents for one in found.items] == [5, 6, 3]
    assert [one.previous for one in found.items] == [3, 1, 0]
    assert [one.complete for one in found.items] == [False, True, True]
    assert found.items[1].trend == 5.0
    assert found.items[2].trend == 3.0
    following = answers.windows(given, SETTINGS, 7200, now, 100, found.next)
    assert following.items[0].end == datetime.fromtimestamp(98 * HOUR, UTC)
    # The window before the last one is still kept.
    oldest = following.items[-1].start.timestamp() - 7200
    assert oldest >= 101 * HOUR - SETTINGS.kept_seconds


def test_another_length_of_window_is_refused() -> None:
    with pytest.raises(UserError, match="seconds: 3600 is wrong, expected 7200, 14400"):
        answers.windows(TagRow(), SETTINGS, 3600, 0, 5, None)


@pytest.mark.parametrize("after", ["", "x", "!!!", "WzFd", "eyJhIjoxfQ==", "W251bGwsMV0=", "A" * 5000])
def test_a_wrong_cursor_is_refused(after: str) -> None:
    with pytest.raises(UserError, match=r"after: .* is wrong, expected the `next` of the previous page"):
        answers.together(row(3), 5, after)
