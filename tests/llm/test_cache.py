"""The same question is asked once."""

from dataclasses import replace

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import Withheld
from tagbus.stream.llm.base import Answer, Asked, Judged, Question
from tagbus.stream.llm.spending.cache import Cache, key_of

ASKED = Asked(Content(id="a", title="Bees"), (Question("p1", "beekeeping"), Question("p2", "honey")))
JUDGED = Judged((Answer(0.9), Answer(0.1)), "yesno", "v1-abc", "model")


def test_a_question_is_the_content_as_read_the_tags_and_the_judge() -> None:
    key = key_of("vllm-1", ASKED)
    assert key == key_of("vllm-1", replace(ASKED, content=Content(id="b", title="Bees"), deadline=1.0))
    others = [
        key_of("vllm-2", ASKED),
        key_of("vllm-1", replace(ASKED, content=Content(id="a", title="Bees", text="on roofs"))),
        key_of("vllm-1", replace(ASKED, content=Content(id="a", title="", text="Bees"))),
        key_of("vllm-1", replace(ASKED, content=Content(id="a", title="Bees", scopes=("news",)))),
        key_of("vllm-1", replace(ASKED, questions=ASKED.questions[:1])),
        key_of("vllm-1", replace(ASKED, questions=ASKED.questions[::-1])),
        key_of("vllm-1", replace(ASKED, questions=(Question("p1", "apiculture"), ASKED.questions[1]))),
        key_of("vllm-1", replace(ASKED, language="de")),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_a_content_of_any_characters_has_a_key() -> None:
    assert key_of("v", replace(ASKED, content=Content(id="a", title="\U0001f600 \x00 \u202e")))


def test_it_keeps_the_answers_that_were_asked_for_last() -> None:
    cache = Cache(2)
    for key in (b"1", b"2"):
        cache.put(key, JUDGED)
    assert cache.get([b"1"]) == [JUDGED]
    cache.put(b"3", JUDGED)
    assert cache.get([b"1", b"2", b"3"]) == [JUDGED, None, JUDGED]
    assert len(cache) == 2


def test_what_ended_in_a_failure_is_asked_again() -> None:
    cache = Cache(2)
    cache.put(b"1", replace(JUDGED, failure=Withheld("budget", "spent")))
    assert cache.get([b"1"]) == [None]


def test_a_cache_of_nothing_keeps_nothing() -> None:
    cache = Cache(0)
    cache.put(b"1", JUDGED)
    assert cache.get([b"1"]) == [None]
