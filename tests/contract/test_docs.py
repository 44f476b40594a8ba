"""The examples on the pages for producers, recommenders and editors are valid events of the contract."""

import json
import re
from pathlib import Path

import pytest

from tagbus.stream.contract.codec import encode, parse
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Content, Exemplar, Knowledge, Tag, TaggedContent
from tagbus.stream.contract.fields import Event
from tagbus.stream.contract.schema import json_schema
from tests.contract.additive import fields, given

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language, `` for those that name none."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_result_that_recommenders_are_shown_is_whole() -> None:
    (shown,) = (json.loads(block) for block in blocks("recommender.md", "json"))
    event = parse(json.dumps(shown).encode(), TaggedContent)
    known = fields(json_schema("tagged"))
    empty = ("evidence.passage.", "degraded.", "usage.")

    assert json.loads(encode(event)) == shown
    left = known.keys() - {path for path, _ in given(shown, known)}
    assert all(any(name in path for name in empty) for path in left)


@pytest.mark.parametrize("path", sorted(fields(json_schema("tagged"))))
def test_every_field_of_a_result_is_explained(path: str) -> None:
    page = (DOCS / "recommender.md").read_text()

    assert re.search(rf"^\|.*`([a-z.]*\.)?{path.rpartition('.')[2]}`", page, re.MULTILINE), path


@pytest.mark.parametrize(
    ("page", "model"),
    [("producer.md", Content), *(("editor.md", model) for model in (Tag, Exemplar, Knowledge, Decision))],
)
def test_every_field_of_an_event_is_explained(page: str, model: type[Event]) -> None:
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / page).read_text(), re.MULTILINE)
    explained = set(re.findall(r"`(\w+)`", " ".join(rows)))

    assert set(model.model_fields) <= explained


def test_the_events_that_editors_are_shown_are_right() -> None:
    lines = [line for block in blocks("editor.md", "") for line in block.splitlines() if line.startswith("{")]

    for line, model in zip(lines, (Tag, Exemplar, Knowledge, Decision), strict=True):
        parse(line.encode(), model)
