"""The report of an acceptance run."""

from html.parser import HTMLParser

from tagbus.stream.acceptance.report import NEVER, Finding, Report, page

HOSTILE = "<script>alert('x')</script> & \"quoted\" {braces}"


class Read(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def report(words: str, *, passed: bool = True) -> Report:
    found = Finding(name="kills", verdict="passed" if passed else "failed", words=words, figures={words: words})
    return Report(passed=passed, started=words, minutes=1.5, installation={words: words}, findings=(found,))


def test_text_from_elsewhere_is_text_in_the_page() -> None:
    read = Read(page(report(HOSTILE)))
    assert "script" not in read.elements
    assert read.text.count(HOSTILE) == 6


def test_what_was_never_run_comes_first() -> None:
    read = Read(page(report("fine", passed=False)))
    places = [read.text.index(one) for one in NEVER]
    assert places == sorted(places)
    assert places[-1] < read.text.index("kills")
    assert "tagbus acceptance: failed" in read.text
    assert next(iter(report("fine").model_dump())) == "never_ran"
