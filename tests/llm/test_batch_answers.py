"""Answers of a batch: trusted if signed, bounded, and bound to the content and the judge."""

import pytest

from tagbus.stream.contract.events import Content
from tagbus.stream.llm.base import Asked, Question, Usage
from tagbus.stream.llm.batch.answers import Given, Offered, digest_of, header

GIVEN = Given(digest="0" * 32, answers={"cats": 0.9, "dogs": None}, prompt="v1", model="m", calls=2, cost=0.5)


def test_a_header_is_believed_if_it_is_signed_with_the_key() -> None:
    offered = Offered("secret")
    value = header(GIVEN, "secret")
    for forged in (header(GIVEN, "guess"), value.replace(b"0.9", b"1.0"), b"", b"x", None, value[:-1], b"a" * 200_000):
        offered.offer(forged)
    assert offered.take(GIVEN.digest) is None
    offered.offer(value)
    assert offered.take(GIVEN.digest) == GIVEN
    # Without a key a worker trusts no header.
    nobody = Offered(None)
    nobody.offer(value)
    assert nobody.take(GIVEN.digest) is None


def test_what_came_in_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagbus.stream.llm.batch.answers.KEPT", 2)
    offered, digests = Offered("secret"), [f"{number:032x}" for number in range(3)]
    for digest in digests:
        offered.offer(header(GIVEN.model_copy(update={"digest": digest}), "secret"))
    assert [offered.take(digest) is not None for digest in digests] == [False, True, True]


def test_it_holds_for_the_content_and_the_judge_that_were_asked() -> None:
    content = Content(id="c", title="A", metadata={"a": 1}, scopes=("s",), language="en")
    same = Content(id="c", title="A", metadata={"a": 1}, scopes=("s",), language="en", version=7)
    others = [
        content.model_copy(update=change)
        for change in ({"id": "d"}, {"title": "B"}, {"text": "T"}, {"language": "fi"}, {"scopes": ()}, {"metadata": {}})
    ]
    assert digest_of("j", content) == digest_of("j", same)
    assert len({digest_of("j", one) for one in [content, *others]} | {digest_of("k", content)}) == 8


def test_a_candidate_that_was_not_asked_about_is_unknown() -> None:
    questions = tuple(Question(name.lower(), name) for name in ("Cats", "Dogs", "Wasps"))
    judged = GIVEN.judged(Asked(Content(id="c", title="A title"), questions))
    assert [(one.probability, one.unknown) for one in judged.answers] == [
        (0.9, None),
        (None, "unasked"),
        (None, "unasked"),
    ]
    assert (judged.usage, judged.cost, judged.failure) == (Usage(2, 0, 0, 0), 0.5, None)
