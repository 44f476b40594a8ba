"""The OpenAPI 3.1 document of the API, from the models of its answers."""

from collections.abc import Mapping
from typing import Final

from pydantic.json_schema import models_json_schema

from tagbus.stream.views import answers
from tagbus.stream.views.answers import MOST, PAGE, Answer

Json = dict[str, object]
CONTRACT: Final = "1.0.0"
# The answer of each path, and its summary.
PATHS: Final[Mapping[str, tuple[type[Answer], str]]] = {
    "/contents/{id}": (answers.ContentAnswer, "The latest tags of a content"),
    "/tags/{id}": (answers.TagAnswer, "A tag, and how many contents have it"),
    "/tags/{id}/contents": (answers.ContentsPage, "Contents of a tag, newest or most confident first"),
    "/tags/{id}/windows": (answers.WindowsPage, "Counts and trends of a tag in hopping windows, newest first"),
    "/tags/{id}/together": (answers.TogetherPage, "Tags that occur together with a tag, most frequent first"),
}
ERRORS: Final[Mapping[str, str]] = {
    "400": "A parameter is wrong; the error names it, its value and what would be right",
    "404": "No content or tag of this id is known, or the content was withdrawn",
    "503": "The replica that owns this id is being replaced; retry after Retry-After",
}


def document() -> Json:
    """The document, as JSON values."""
    models = [answer for answer, _ in PATHS.values()]
    _, schemas = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tagbus views", "version": CONTRACT, "summary": "Tags of contents, contents of tags"},
        "paths": {path: {"get": _operation(path, answer, text)} for path, (answer, text) in PATHS.items()},
        "components": {"schemas": {**schemas["$defs"], "Error": error}},
    }


def _operation(path: str, answer: type[Answer], text: str) -> Json:
    return {
        "summary": text,
        "operationId": "_".join(part for part in path.split("/") if part and not part.startswith("{")),
        "parameters": [_id(), *_parameters(path)],
        "responses": {
            "200": _response("The answer", answer.__name__),
            **{status: _response(words, "Error") for status, words in ERRORS.items()},
        },
    }


def _response(text: str, schema: str) -> Json:
    found = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": text, "content": {"application/json": found}}


def _id() -> Json:
    return {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "its id"}


def _parameters(path: str) -> list[Json]:
    if path.count("/") < 3:
        return []
    found = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST, "default": PAGE}, "items of a page"),
        _query("after", {"type": "string"}, "the `next` of the previous page"),
    ]
    if path.endswith("/contents"):
        order: Json = {"type": "string", "enum": ["newest", "confidence"], "default": "newest"}
        found.append(_query("order", order, "sort order: what is listed first"))
    if path.endswith("/windows"):
        words = "length of a window, one of views.window_seconds; the shortest if unset"
        found.append(_query("seconds", {"type": "integer"}, words))
    return found


def _query(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": text}
