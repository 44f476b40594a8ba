"""The page as text; tests/browser opens it."""

import re
from html.parser import HTMLParser

from tagbus.stream.app.mistakes.page import render, shortened
from tests.app.mistakes.toy import ABOUT, evaluated, explanation, explanations, tagged

ATTACK = "<script>alert(1)</script>\"'&{{ 7 * 7 }}</title><img src=x onerror=alert(1)>"


class Parsed(HTMLParser):
    """The elements with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_content_has_its_tags_its_evidence_and_what_is_missing() -> None:
    found = evaluated([tagged("c1", "a,b", {"x": 0.9, "a": 0.4}, title="Bees in the city")])
    text = " ".join(Parsed(render(found, explanations(found), ABOUT)).text.split())
    assert "Bees in the city" in text
    assert re.search(r"1 name of x 90% ✗ not given the text has “x”", text)
    assert re.search(r"2 name of a 40% ✓ right", text)
    assert "– name of b ✓ right not found: it came to place 14" in text
    assert "2 similar contents have it; the nearest, 0.74: “a neighbour's title”" in text
    assert "mini-1, no components" in text
    assert "Memory of three contents." in text


def test_each_part_says_so_where_there_is_nothing() -> None:
    found = evaluated([tagged("c1", "a", {"a": 0.9})])
    text = Parsed(render(found, {}, ABOUT)).text
    assert "Every content has its right tags first." in text
    assert "No tag was taken for another in two contents." in text
    assert "The tagger is sure of no tag that people did not give." in text


def test_whatever_a_content_or_a_tag_holds_is_text() -> None:
    one = tagged("c", ATTACK, {"x" + ATTACK: 0.9}, title=ATTACK, text=ATTACK, language=ATTACK[:20])
    other = tagged(ATTACK, "a", {"x" + ATTACK: 0.9}, title=ATTACK)
    found = evaluated([one, other])
    explained = {each.content.id: explanation(each, near=ATTACK) for each in found.contents}
    plain = evaluated([tagged("c", "a", {"x": 0.9}, text="t", language="en"), tagged("d", "b", {"x": 0.9})])
    hostile, harmless = (Parsed(render(*each, ABOUT)) for each in ((found, explained), (plain, explanations(plain))))
    assert {name for name, _ in hostile.elements} == {name for name, _ in harmless.elements}
    assert not {"script", "img", "iframe", "link", "object"} & {name for name, _ in hostile.elements}
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    assert hostile.text.count("<script>alert(1)</script>") > 5
    assert "{{ 7 * 7 }}" in hostile.text


def test_it_refers_to_nothing_outside() -> None:
    found = evaluated([tagged("c", "a", {"x": 0.9}, title="https://example.org/a.png")])
    html = render(found, explanations(found), ABOUT)
    references = [
        value
        for _, attributes in Parsed(html).elements
        for name, value in attributes.items()
        if name in {"href", "src", "srcset", "action", "data", "poster"}
    ]
    assert references
    assert all(value is not None and value.startswith("#") for value in references)
    assert not re.search(r"@import|url\(", html)


def test_control_characters_are_replaced() -> None:
    found = evaluated([tagged("c", "a", {"x": 0.9}, title="a\0b\x1b[2Jc")])
    html = render(found, explanations(found), ABOUT)
    assert "a�b�[2Jc" in html


def test_a_long_text_is_cut() -> None:
    assert len(shortened(tagged("c", "a", {}, text="x" * 5000))) == 601
    assert shortened(tagged("c", "a", {}, title="T", text="words")) == "T: words"
