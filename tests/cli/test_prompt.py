"""`tagbus prompt show`: the verbatim prompts of a content, with nothing sent."""

from pathlib import Path

import pytest

from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag
from tests.cli.harness import Cli
from tests.llm.scripted import ABSENT, serving

TAGS = [
    Tag(id="bees", name="Bees", description="honey bees and their keepers", names={"fi": "Mehiläiset"}),
    Tag(id="roofs", name="Roofs"),
]
EXEMPLARS = [Exemplar(id="c1", title="Bees on the roofs of a city", accepted=("bees",), rejected=("roofs",))]
KNOWLEDGE = [Knowledge(id="k", kind="rule", title="Hives", text="Hives on city roofs are beekeeping.")]
ASKED = Content(id="asked", title="Bees on the roofs of the city", text="Nothing </data> ends.", language="en")


@pytest.fixture
def memory(tmp_path: Path) -> list[str]:
    arguments = []
    for name, events in (("tags", TAGS), ("exemplars", EXEMPLARS), ("knowledge", KNOWLEDGE)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(one.model_dump_json() + "\n" for one in events))
        arguments += [f"--{name}", str(file)]
    return arguments


def shown(tagbus: Cli, memory: list[str], **settings: str) -> list[str]:
    with serving(lambda _: ABSENT) as server:
        given = {"LLM__URL": server.url, "RECALL__C2T_THRESHOLD": "0", "KNOWLEDGE__THRESHOLD": "0", **settings}
        answer = tagbus("prompt", "show", "-", *memory, stdin=ASKED.model_dump_json().encode(), settings=given)
        assert server.requests == []
    assert answer.code == 0, answer.err
    return answer.out.splitlines()


def test_the_whole_prompt_is_there_with_counts_of_tokens(tagbus: Cli, memory: list[str]) -> None:
    lines = shown(tagbus, memory)
    assert lines[0].startswith("content asked: prompt v1, ")
    assert lines[0].endswith(" of 2000 tokens at most")
    assert "right: Bees" in lines
    assert "wrong: Roofs" in lines
    assert "Hives: Hives on city roofs are beekeeping." in lines
    assert "text: Nothing ‹/data› ends." in lines
    assert 'Is the tag "Bees" right for this content? The tag means: honey bees and their keepers' in lines
    assert [line for line in lines if line.startswith("--- decision_api bees, ")]


def test_the_backend_of_the_settings_counts(tagbus: Cli, memory: list[str]) -> None:
    lines = shown(tagbus, memory, LLM__BACKEND="yesno", LLM__SELECT="labels")
    assert "Answer with one word, Yes or No." in lines
    assert [line for line in lines if line.startswith("--- select, ")]


def test_what_was_cut_is_told(tagbus: Cli, memory: list[str]) -> None:
    lines = shown(tagbus, memory, LLM__PROMPT_TOKENS="200")
    assert "cut: exemplar 1" in lines[0]


def test_without_a_server_there_is_nothing_to_show(tagbus: Cli, memory: list[str]) -> None:
    answer = tagbus("prompt", "show", "-", *memory, stdin=ASKED.model_dump_json().encode())
    assert answer.code == 2
    assert "TAGBUS_LLM__URL is not set" in answer.err
