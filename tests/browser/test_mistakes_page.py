"""The page of `tagbus evaluate --errors` in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tagbus.stream.app.mistakes.page import render
from tagbus.stream.contract.events import Tag
from tests.app.mistakes.toy import ABOUT, evaluated, explanation, tagged
from tests.browser.chromium import Browser, Page, browser

ATTACK = (
    "<script>window.taken=1</script><img src='http://127.0.0.1:9/a.png' onerror='window.taken=1'>"
    '"><svg onload="window.taken=1"><style>*{display:none}</style></details>'
)
LONG = "w" * 3000
TURNED = "\u202eturned"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of contents that would like to be more than text."""
    tags = [Tag(id="evil", name=ATTACK[:200]), Tag(id="turned", name=TURNED)]
    contents = [
        tagged("attack", "evil,a", {"evil": 0.9, "x": 0.8, "turned": 0.7}, title=ATTACK, text=ATTACK, language="en"),
        tagged(ATTACK, "a,b", {"evil": 0.9, "x": 0.8}, title=LONG, language="<b>x</b>"),
        tagged("turned", "b", {"turned": 0.9}, title=TURNED, text="https://example.org/", language="ar"),
        *(tagged(f"c{number}", "a", {"x": 0.9 - number / 20}, title="word " * number) for number in range(1, 9)),
    ]
    found = evaluated(contents, {"evil": 3, "x": 500, "a": 20}, tags)
    explained = {one.content.id: explanation(one, near=ATTACK) for one in found.contents}
    path = tmp_path_factory.mktemp("page") / "errors.html"
    path.write_text(render(found, explained, ABOUT), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(chromium: Browser, file: Path) -> Page:
    return chromium.open(file)


def test_whatever_a_content_holds_is_shown_as_text(page: Page) -> None:
    assert page.run("typeof window.taken") == "undefined"
    assert page.run("document.querySelectorAll('script, img, iframe, object, link').length") == 0
    assert page.run("document.querySelectorAll('style').length") == 1
    assert page.run("document.querySelector('details.content').innerText.includes('<script>window.taken=1')")


def test_it_asks_nobody(page: Page, file: Path) -> None:
    page.run("document.fonts.ready.then(() => true)")
    assert page.requests == [file.as_uri()]


def test_it_runs_no_script_even_if_one_got_in(page: Page) -> None:
    page.run(
        "(() => { const one = document.createElement('script'); one.text = 'window.ran = 1';"
        " document.body.append(one); one.remove(); })()"
    )
    page.run(
        "new Promise(done => { const one = new Image(); one.onload = one.onerror = done;"
        " one.src = 'http://127.0.0.1:9/b.png'; })"
    )
    assert page.run("typeof window.ran") == "undefined"


def test_every_part_that_the_head_names_is_there_and_can_be_seen(page: Page) -> None:
    parts = page.run("[...document.querySelectorAll('nav a')].map(one => one.getAttribute('href'))")
    assert parts == ["#worst", "#confusions", "#never", "#gaps", "#curves", "#method"]
    for part in parts:
        assert page.run(f"document.querySelector('{part} h2').getBoundingClientRect().height") > 0


def test_a_content_opens_by_a_click(page: Page) -> None:
    assert page.run("document.querySelectorAll('details.content').length") > 3
    second = "document.querySelectorAll('details.content')[1]"
    assert page.run(f"{second}.querySelector('table').checkVisibility()") is False
    page.run(f"{second}.querySelector('summary').click()")
    assert page.run(f"{second}.querySelector('table').checkVisibility()") is True
    assert page.run(f"{second}.querySelector('table').rows.length") > 1


def test_curves_are_drawn_within_their_frame(page: Page) -> None:
    assert page.run("document.querySelectorAll('figure svg').length") == 3
    assert page.run(
        "[...document.querySelectorAll('figure svg')].every(svg => { const box = svg.getBoundingClientRect();"
        " const marks = [...svg.querySelectorAll('circle, polyline, text')].map(one => one.getBoundingClientRect());"
        " return marks.length > 8 && marks.every(one => one.left >= box.left - 1 && one.right <= box.right + 1"
        " && one.top >= box.top - 1 && one.bottom <= box.bottom + 1); })"
    )


def test_a_text_written_from_right_to_left_turns_nothing_around_it(page: Page) -> None:
    assert page.run(
        "[...document.querySelectorAll('bdi')].every(one => getComputedStyle(one).unicodeBidi.includes('isolate'))"
    )
    assert page.run("[...document.querySelectorAll('bdi')].some(one => one.innerText.includes('turned'))")


@pytest.mark.parametrize("width", [360, 1200])
def test_it_is_as_wide_as_the_window_however_long_a_word_is(chromium: Browser, file: Path, width: int) -> None:
    narrow = chromium.open(file, width)
    narrow.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert narrow.run("document.documentElement.scrollWidth") <= width
