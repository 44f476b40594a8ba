"""The OpenAPI document: each answer matches it."""

import json

import pytest
from jsonschema import Draft202012Validator

from tagbus.stream.config import ViewsSettings
from tagbus.stream.views import answers
from tagbus.stream.views.answers import Answer
from tagbus.stream.views.contents import Latest, Mark
from tagbus.stream.views.openapi import PATHS, document
from tagbus.stream.views.tags import TagRow

ROW = TagRow(name="N", count=1, contents={"c": (0.5, 1000)}, together={"t": 1}, steps={0: 1})
LATEST = Latest(tags=(Mark(id="t", name="T", confidence=0.5),), release="r", time=0, tagged=1)
ANSWERS: dict[str, Answer] = {
    "/contents/{id}": answers.content("c", LATEST),
    "/tags/{id}": answers.tag("t", ROW),
    "/tags/{id}/contents": answers.contents(ROW, "newest", 10, 10, None),
    "/tags/{id}/windows": answers.windows(ROW, ViewsSettings(), 86_400, 0, 10, None),
    "/tags/{id}/together": answers.together(ROW, 10, None),
}


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_is_as_its_schema_says(path: str) -> None:
    whole = json.loads(json.dumps(document()))
    shown = whole["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    # References resolve within the document.
    Draft202012Validator({**shown, "components": whole["components"]}).validate(
        json.loads(ANSWERS[path].model_dump_json())
    )


def test_every_schema_is_one() -> None:
    whole = document()
    assert whole["openapi"] == "3.1.0"
    for schema in json.loads(json.dumps(whole))["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document())
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(json.loads(text)["components"]["schemas"])
