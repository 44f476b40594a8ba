"""Texts about tags by a language model: requested with fences, cut to size, within the budget, and marked."""

import json
from collections.abc import Callable

import pytest

from tagbus.stream.app.judge.synthesis import PREFIX, Known, described, exemplars_of
from tagbus.stream.config import LlmSettings
from tagbus.stream.contract.codec import parse
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import Withheld
from tagbus.stream.llm.base import Meter, Usage
from tagbus.stream.llm.client import Unlimited
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.llm.prompts import Sample, Subject
from tagbus.stream.llm.synthesis.subject import TEXT, TITLE, Description, Exemplars, Wanted
from tagbus.stream.llm.synthesis.write import Author, Text
from tests.llm import answers
from tests.llm.asking import QUICK
from tests.llm.hostile import CONTENTS as HOSTILE
from tests.llm.scripted import Say, Script, Server, serving

BEES = Subject("Bees", "insects", ("honeybees",), ("Insects",), (Sample("A hive", "In winter.", own=True),))


def writes(*contents: tuple[str, str], **more: object) -> Script:
    said = {"contents": [{"title": title, "text": text} for title, text in contents]}
    return lambda _: Say(answers.completion(json.dumps(said), **more))  # type: ignore[arg-type]


async def written(
    server: Server, *subjects: Subject, wanted: Wanted | None = None, meter: Meter | None = None, **given: object
) -> dict[int, Text]:
    settings = LlmSettings(url=server.url, **{"model": "m", "profile": "generic", **given})
    at = connected(settings, QUICK, meter or Unlimited())
    try:
        author = Author(at, prompts_of(settings), settings)
        return {place: text async for place, text in author.write(subjects or [BEES], wanted or Exemplars(2))}
    finally:
        await at.client.close()


async def test_exemplars_are_written_from_the_tag_and_contents_that_show_how() -> None:
    with serving(writes(("Swarms in May", "A text."), ("Honey", ""))) as server:
        found = await written(server)
    assert [(one.title, one.text) for one in found[0].written] == [("Swarms in May", "A text."), ("Honey", "")]
    assert (found[0].model, found[0].why) == ("test-model", None)
    (request,) = server.to("/chat/completions")
    said = request.body["messages"][1]["content"]
    assert said.startswith(
        '<data kind="tag">\nname: Bees\nmeans: insects\nalso called: honeybees\nbelongs to: Insects\n'
    )
    assert '<data kind="content" about="the tag">\ntitle: A hive\ntext: In winter.\n</data>' in said
    assert 'Invent 2 contents that the tag "Bees" is right for' in said
    assert request.body["response_format"]["json_schema"]["schema"]["required"] == ["contents"]
    assert request.body["temperature"] > 0


async def test_a_description_is_written_for_a_bare_name() -> None:
    with serving(lambda _: Say(answers.completion('{"description": "Insects that\\n make honey."}'))) as server:
        found = await written(server, Subject("Bees"), wanted=Description())
    assert [one.text for one in found[0].written] == ["Insects that make honey."]


@pytest.mark.parametrize(
    ("say", "wanted", "why"),
    [
        (Say(answers.completion("Sure! Here are two:")), Exemplars(2), "malformed"),
        (Say(answers.completion('{"contents": [{"title": "cut')), Exemplars(2), "malformed"),
        (Say(answers.completion('{"contents": 7}')), Exemplars(2), "malformed"),
        (Say(answers.completion('{"contents": [7, {"title": ["x"]}, {"title": " "}]}')), Exemplars(2), "nothing"),
        (
            Say(answers.completion('{"contents": [{"title": "a  HIVE", "text": "in winter."}]}')),
            Exemplars(2),
            "nothing",
        ),
        (Say(answers.completion('{"description": "bees."}')), Description(), "nothing"),
        (Say(answers.completion("", refusal="No.")), Exemplars(2), "refusal"),
        (Say({"error": {"message": "too long"}}, 400), Exemplars(2), "refusal"),
        (Say({"choices": []}), Exemplars(2), "malformed"),
        (Say(answers.completion("[" * 100_000)), Exemplars(2), "malformed"),
    ],
)
async def test_a_text_not_about_the_tag_is_left_out_with_a_reason(say: Say, wanted: Wanted, why: str) -> None:
    with serving(lambda _: say) as server:
        found = await written(server, wanted=wanted)
    assert (found[0].written, found[0].why) == ((), why)


async def test_written_texts_are_cut_and_counted_once() -> None:
    long = ("T" * 10_000, "word " * 10_000)
    with serving(writes(long, ("Same", "x"), ("same", "X"), ("Third\u202e\x00", "a\nb"), ("Fourth", ""))) as server:
        found = await written(server, wanted=Exemplars(4))
    first, second, third = found[0].written
    assert (len(first.title), len(first.text)) == (TITLE, TEXT)
    assert second.title == "Same"
    assert (third.title, third.text) == ("Third", "a b")


async def test_hostile_names_and_contents_stay_in_their_fence() -> None:
    subjects = [
        Subject(title[:200], text, (title,), (text[:200],), (Sample(title, text), Sample(text, title, own=True)))
        for title, text in HOSTILE
    ]
    with serving(writes(("A", "B"))) as server:
        found = await written(server, *subjects, in_flight=4)
    assert len(found) == len(HOSTILE)
    for request in server.to("/chat/completions"):
        said = request.body["messages"][1]["content"]
        assert said.count("</data>") == 3
        assert "<|" not in said
        assert "[INST]" not in said
        fenced, _, end = said.rpartition("</data>")
        assert end.count("\n") <= 3
        assert fenced.count("<data") == 3


async def test_a_prompt_loses_its_last_samples_before_it_is_too_long() -> None:
    samples = tuple(Sample(f"Content {number}", "words " * 100) for number in range(20))
    with serving(writes(("A", "B"))) as server:
        await written(server, Subject("Bees", samples=samples), prompt_tokens=600)
    said = server.to("/chat/completions")[0].body["messages"][1]["content"]
    assert "Content 0" in said
    assert "Content 19" not in said
    assert len(said.encode()) <= 600 * 3


class Purse(Unlimited):
    """Admits a number of attempts."""

    def __init__(self, attempts: int) -> None:
        self.left = attempts

    def attempt(self, estimate: Usage, deadline: float | None):  # type: ignore[no-untyped-def]
        self.left -= 1
        if self.left < 0:
            raise Withheld("budget", "the budget of this day is spent")
        return super().attempt(estimate, deadline)


async def test_when_the_budget_is_spent_the_rest_is_left() -> None:
    with serving(writes(("A", "B"))) as server:
        found = await written(server, *[BEES] * 50, meter=Purse(5), in_flight=2)
    assert len(server.to("/chat/completions")) == 5
    assert [text.why for text in found.values()].count(None) == 5
    assert {text.why for text in found.values()} == {None, "budget"}
    # Only the requests in flight when it was spent were tried.
    assert len(found) <= 7


async def test_a_server_that_is_down_is_not_asked_for_all_the_rest() -> None:
    with serving(lambda _: Say({}, 500)) as server:
        monkey = pytest.MonkeyPatch()
        monkey.setattr("tagbus.stream.llm.synthesis.write.SECONDS", 0.3)
        found = await written(server, *[BEES] * 50, in_flight=2)
        monkey.undo()
    assert {text.why for text in found.values()} == {"dependency"}
    assert len(found) <= 4


def known(*exemplars: Exemplar, tags: list[Tag] | None = None) -> Known:
    given = [Tag(id="bees", name="Bees"), Tag(id="wax", name="Wax", description="of bees", parents=("bees",))]
    return Known(tags or given, exemplars)


def exemplar(number: int, *tags: str, **more: object) -> Exemplar:
    return Exemplar(id=f"e{number}", title=f"Title {number}", accepted=tags, **more)


def test_tags_with_few_exemplars_of_people_come_first() -> None:
    machine = [exemplar(9 + number, "wax", source="machine") for number in range(5)]
    found = known(*(exemplar(number, "bees") for number in range(2)), *machine)
    assert [one.tag.id for one in found.few(3, None)] == ["wax", "bees"]
    assert [one.tag.id for one in found.few(2, None)] == ["wax"]
    assert [one.tag.id for one in found.few(3, 1)] == ["wax"]
    assert found.few(3, None)[0].subject.broader == ("Bees",)


def test_a_tag_with_written_texts_and_a_replaced_one_are_left_out() -> None:
    written = Exemplar(id=f"{PREFIX}1", source="machine", title="T", accepted=("wax",))
    tags = [Tag(id="bees", name="Bees"), Tag(id="wax", name="Wax"), Tag(id="old", name="Old", replaced_by=("bees",))]
    assert [one.tag.id for one in known(written, tags=tags).few(3, None)] == ["bees"]


def test_descriptions_are_for_tags_that_have_none() -> None:
    assert [one.tag.id for one in known().bare(None)] == ["bees"]


def test_a_prompt_shows_nothing_that_not_all_who_see_the_tag_may_see() -> None:
    tags = [
        Tag(id="open", name="Open"),
        Tag(id="a", name="A", scopes=("a",)),
        Tag(id="both", name="B", scopes=("a", "b")),
    ]
    found = known(
        exemplar(1, "open", "a", "both"),
        exemplar(2, "open", "a", "both", scopes=("a",)),
        exemplar(3, "open", "a", "both", scopes=("a", "b")),
        exemplar(4, "x", scopes=("b",)),
        tags=tags,
    )
    shown = {one.tag.id: {sample.title for sample in one.subject.samples} for one in found.few(9, None)}
    assert shown == {
        "open": {"Title 1"},
        "a": {"Title 1", "Title 2", "Title 3"},
        "both": {"Title 1", "Title 3"},
    }


def test_exemplars_of_a_replaced_tag_count_for_its_successor() -> None:
    """A tag that others were merged into has their exemplars: nothing is written, and paid, for it."""
    tags = [
        Tag(id="new", name="New"),
        Tag(id="old", name="Old", replaced_by=("new",)),
        Tag(id="split", name="Split", replaced_by=("new", "other")),
        Tag(id="other", name="Other"),
    ]
    found = known(exemplar(1, "old"), exemplar(2, "old", "split"), tags=tags)
    assert found.counts == {"new": 2}
    assert [(one.tag.id, len(one.subject.samples)) for one in found.few(3, None)] == [("other", 2), ("new", 2)]


def test_a_prompt_names_no_broader_tag_that_not_all_who_see_the_tag_may_see() -> None:
    above = [Tag(id="open", name="Open"), Tag(id="a", name="A", scopes=("a",)), Tag(id="b", name="B", scopes=("b",))]
    parents = tuple(one.id for one in above)
    below = [Tag(id="all", name="All", parents=parents), Tag(id="own", name="Own", parents=parents, scopes=("a",))]
    found = {one.tag.id: one.subject.broader for one in known(tags=[*above, *below]).few(9, None)}
    assert (found["all"], found["own"]) == (("Open",), ("Open", "A"))


TEXTS: list[tuple[Callable[..., list[bytes]], type[Exemplar] | type[Tag]]] = [
    (exemplars_of, Exemplar),
    (described, Tag),
]


@pytest.mark.parametrize(("lines", "kind"), TEXTS, ids=["exemplars", "descriptions"])
def test_a_written_text_names_its_author(lines: Callable[..., list[bytes]], kind: type[Exemplar] | type[Tag]) -> None:
    (lacking,) = known(tags=[Tag(id="bees", name="Bees", scopes=("s",))]).few(1, None)
    text = Text(tuple(Exemplars(1).read('{"contents": [{"title": "T", "text": "X"}]}', lacking.subject)), "model-1")
    (line,) = lines(lacking, text, "v1")
    assert json.loads(line)["made_by"] == {"model": "model-1", "prompt": "v1"}
    event = parse(line, kind)
    assert event.scopes == ("s",)
    if isinstance(event, Exemplar):
        assert (event.source, event.accepted) == ("machine", ("bees",))
        assert event.id.startswith(PREFIX)
        # The same text is the same exemplar.
        assert json.loads(lines(lacking, text, "v1")[0])["id"] == event.id
    else:
        assert event.description == "X"
