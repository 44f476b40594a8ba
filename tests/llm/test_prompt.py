"""Prompts: their content, the order of cuts, and the limits of hostile texts."""

import hashlib
import unicodedata
from importlib.resources import files

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError, UndefinedError
from tokenizers import Tokenizer

from tagbus.stream.config import LlmSettings
from tagbus.stream.contract.events import Content
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.errors import UserError
from tagbus.stream.llm.base import Asked, Backend, Question, Shot
from tagbus.stream.llm.judge import TEMPLATE
from tagbus.stream.llm.open import prompts_of
from tagbus.stream.llm.prompts.fence import fenced
from tagbus.stream.llm.prompts.length import tokens
from tagbus.stream.llm.prompts.prompt import Prompts, environment, versions
from tagbus.stream.llm.prompts.show import shown
from tagbus.stream.recall.knowledge import Segment
from tests.llm import answers
from tests.llm.asking import asked, directly, judging
from tests.llm.hostile import CONTENTS
from tests.llm.kinds import KINDS
from tests.llm.scripted import routed, serving

# A calibration belongs to a prompt version: a released version never changes, and a change is a new version.
HASHES = {"v1": "aefcff31cec596e6"}

# Of the empty line between a content and its question.
LINES = 2
SHOTS = tuple(Shot(f"Exemplar {n}", "Its text.", ("Cats",), ("Dogs",)) for n in range(1, 6))
KNOWLEDGE = tuple(Segment(f"k{n}", "definition", f"Term {n}", "What it means.", 0.5) for n in range(1, 4))


def whole(text: str = "The content's text.", metadata: dict[str, object] | None = None) -> Asked:
    content = Content(id="c1", title="The title", text=text, metadata=metadata or {})
    return Asked(content, (Question("t1", "Cats", "Small felines."),), SHOTS, KNOWLEDGE, "fi")


def test_a_released_version_never_changes() -> None:
    found = {}
    for version in versions():
        folder = files("tagbus.stream") / "llm" / "prompts" / version
        parts = sorted((one.name, one.read_bytes()) for one in folder.iterdir())
        found[version] = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    assert found == HASHES


def test_exemplars_and_knowledge_come_before_the_content_and_the_content_once() -> None:
    rendered = Prompts("v1", 4000, shots=2).render(whole())
    assert rendered.context.splitlines() == [
        '<data kind="example">', "title: Exemplar 1", "text: Its text.", "right: Cats", "wrong: Dogs", "</data>",
        '<data kind="example">', "title: Exemplar 2", "text: Its text.", "right: Cats", "wrong: Dogs", "</data>",
        '<data kind="knowledge">', "Term 1: What it means.", "</data>",
        '<data kind="knowledge">', "Term 2: What it means.", "</data>",
        '<data kind="knowledge">', "Term 3: What it means.", "</data>",
        '<data kind="content" language="fi">', "title: The title", "text: The content's text.", "</data>",
    ]  # fmt: skip
    assert rendered.cut == ()


def test_the_question_names_the_tag_last() -> None:
    prompts = Prompts("v1", 4000)
    assert prompts.yes_no(Question("t1", "Cats", "Small felines.")) == (
        'Is the tag "Cats" right for this content? The tag means: Small felines.\nAnswer with one word, Yes or No.'
    )
    assert prompts.yes_no(Question("t1", "Cats"), ("No", "Yes")).endswith("No or Yes.")


def test_the_excess_is_cut_in_the_stated_order() -> None:
    asking = whole("word " * 2000, {"section": "home"})
    cuts = {}
    for length in (4000, 700, 300, 250):
        rendered = Prompts("v1", length, ("section",), shots=5).render(asking, 20)
        cuts[length] = rendered.cut
        assert rendered.tokens + 20 <= length
        assert "title: The title" in rendered.context
        assert rendered.context.endswith("</data>")
    order = [*(f"exemplar {n}" for n in (5, 4, 3, 2, 1)), *(f"knowledge {n}" for n in (3, 2, 1)), "text"]
    assert all(cut == tuple(order[: len(cut)]) for cut in cuts.values()), cuts
    assert cuts[250] == tuple(order)


def test_only_listed_metadata_goes_out() -> None:
    asking = whole(metadata={"section": "home", "author": "Ada", "internal": {"price": 1}})
    context = Prompts("v1", 4000, ("section", "internal", "absent")).render(asking).context
    assert "section: home" in context
    assert "internal: {'price': 1}" in context
    assert "Ada" not in context
    assert "absent" not in context


def test_an_unknown_version_is_named() -> None:
    with pytest.raises(UserError, match=r"TAGBUS_LLM__PROMPT='v9': there is no such version, expected v1"):
        Prompts("v9", 1000)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        pytest.param("{{ ''.__class__.__mro__ }}", SecurityError, id="internals"),
        pytest.param("{{ shots.append(1) }}", SecurityError, id="changes"),
        pytest.param("{{ absent }}", UndefinedError, id="undefined"),
    ],
)
def test_a_template_reads_only_what_it_is_given(template: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        environment("v1").from_string(template).render(shots=[])


@pytest.mark.parametrize("one", ["a", "ä", "漢", "👩‍👩‍👧", "<", "\u200b", "\n"])
def test_a_megabyte_of_one_character_is_cut_like_any_other(one: str) -> None:
    text = (one * 500_000)[:500_000]
    content = Content(id="c1", title="T", text=text)
    rendered = Prompts("v1", 500).render(Asked(content, ()))
    assert rendered.tokens <= 500


@hypothesis.settings(max_examples=40)
@given(st.text(max_size=300) | st.text("[]|｜~gMASK", max_size=100), st.integers(1, 50))
def test_fenced_text_is_one_line_that_cannot_end_its_fence(text: str, length: int) -> None:
    line = fenced(text, length)
    assert len(line) <= length
    assert not set(line) & set('<>"｜')
    assert not [mark for mark in ("[|", "|]", "]~", "~[", "[gMASK]") if mark in line]
    assert len(line.splitlines()) <= 1
    assert not [one for one in line if unicodedata.category(one) in {"Cc", "Cs", "Cn"}]


def test_ordinary_text_stays_as_it_is() -> None:
    for text in (
        "Müller & Söhne (2024): 50 % — “quoted”",
        "کتاب‌خانه",
        "日本語のタイトル",
        "👩‍👩‍👧 family",
        "a[0] = [X]",
    ):
        assert fenced(text, 200) == text


@pytest.mark.parametrize("where", ["content", "exemplar", "knowledge", "tag"])
def test_no_hostile_text_ends_its_fence_or_starts_a_line(where: str) -> None:
    prompts = Prompts("v1", 100_000, ("field",))
    for title, text in CONTENTS:
        content = Content(id="c", title="T", text="x")
        shots, knowledge, tag = SHOTS[:1], KNOWLEDGE[:1], Question("t", "Cats")
        if where == "content":
            content = Content(id="c", title=title, text=text, language=None, metadata={"field": text})
        elif where == "exemplar":
            shots = (Shot(title, text, (title,), (text,)),)
        elif where == "knowledge":
            knowledge = (Segment("k", "rule", title, text, 0.5),)
        else:
            tag = Question("t", title, text)
        rendered = prompts.render(Asked(content, (tag,), shots, knowledge, title[:35]))
        calm = prompts.render(whole(metadata={"field": "x"}))
        # The lines begin in the same way as with harmless texts: nothing was added.
        starts = [line.partition(":")[0].partition(" ")[0] for line in rendered.context.splitlines()]
        shots_lines = 6
        assert rendered.context.count("</data>") == rendered.context.count("<data kind=") == 3
        assert len(starts) == shots_lines + 3 + (5 if where == "content" else 4)
        assert rendered.task == calm.task
        question = prompts.yes_no(tag)
        assert len(question.splitlines()) == 2
        for written in (rendered.context, question):
            outside = written.replace("</data>", "").replace('<data kind="example">', "")
            outside = outside.replace('<data kind="knowledge">', "").replace('<data kind="content"', "")
            assert outside.count("<") == 0
            assert "[INST]" not in outside
            assert "\u202e" not in outside


async def test_200_hostile_contents_get_answers_about_their_own_tags_alone() -> None:
    assert len(CONTENTS) >= 200
    contents = [
        Asked(Content(id=f"c{n}", title=title, text=text), asked("Cats", "Nuclear").questions)
        for n, (title, text) in enumerate(CONTENTS)
    ]
    script = routed(decisions=answers.vllm_decisions(), completions=answers.chat())
    for backend in ("decision_api", "stated"):
        with serving(script) as server:
            async with directly(server.url, backend, profile="vllm") as judge:
                found = await judge.judge(contents)
        assert len(found) == len(contents)
        assert all([one.probability for one in judged.answers] == [0.95, 0.05] for judged in found)


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_the_estimate_is_no_less_than_what_tokenizers_make(text: str) -> None:
    # By the packaged encoder's, whose vocabulary is smaller than any language model's; tests/llm/real has SmolLM2's.
    tokenizer = Tokenizer.from_file(str(default_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) <= tokens(text)


@pytest.mark.parametrize("select", ["off", "labels"])
@pytest.mark.parametrize("backend", ["stated", "yesno", "decision_api"])
async def test_no_prompt_is_longer_than_the_limit_and_each_is_as_shown(backend: Backend, select: str) -> None:
    # Given more candidates than a request takes, and long names after the first twenty
    names = [f"n{n}" if n < 20 else f"{'long name ' * 9}{n}" for n in range(40)]
    asking = asked(*names, text="word " * 4000)
    script = routed(decisions=answers.vllm_decisions(), completions=answers.chat())
    with serving(script) as server:
        given = {"profile": "vllm", "model": "test-model", "backend": backend, "select": select}
        settings = LlmSettings(url=server.url, prompt_tokens=2000, watch_seconds=0, **given)
        found = shown(asking, prompts_of(settings), settings)
        # When they are asked about
        async with judging(server.url, prompt_tokens=2000, **given) as judge:
            await judge.judge([asking])
    # Then no prompt exceeds the limit, and all hold the content's part that is shown
    task, context = found.shared
    sent = [one.body["messages"][1]["content"] for one in server.to("/chat/completions")]
    for one in server.to("/decisions"):
        content = one.body["input"].removeprefix(f"{task.text}\n\n")
        sent += [f"{content}\n\n{question['instructions']}" for question in one.body["questions"]]
    about_it = [one for one in sent if "purr" not in one]
    assert all(one.startswith(context.text) for one in about_it)
    assert max(tokens(task.text) + tokens(one) + TEMPLATE for one in about_it) <= found.longest + LINES <= 2000 + LINES
    assert "text: word" in context.text
