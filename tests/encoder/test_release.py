"""The release: the model folder matches release.json, and texts are assembled as it specifies."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import (
    GOLDEN,
    MODEL,
    RELEASE,
    TOKENIZER,
    Release,
    content_text,
    default_folder,
    load_release,
)
from tagbus.stream.errors import ReleaseMismatch

SHIPPED = load_release(default_folder())


def edit(folder: Path, **changes: Any) -> None:
    path = folder / RELEASE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_shipped_model_is_what_its_release_says() -> None:
    assert SHIPPED.dimension == 384
    assert SHIPPED.max_tokens == 256
    assert SHIPPED.encoder == "all-MiniLM-L6-v2"


def test_the_shipped_model_is_small_enough_to_travel() -> None:
    assert (default_folder() / MODEL).stat().st_size < 50_000_000


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, GOLDEN])
def test_a_changed_file_is_named_with_both_hashes(folder: Path, name: str) -> None:
    expected = {
        MODEL: SHIPPED.model_sha256,
        TOKENIZER: SHIPPED.tokenizer_sha256,
        GOLDEN: SHIPPED.golden_sha256,
    }[name]
    with (folder / name).open("ab") as file:
        file.write(b" ")

    with pytest.raises(ReleaseMismatch) as caught:
        OnnxEncoder(folder)

    message = str(caught.value)
    assert str(folder / name) in message
    assert expected in message
    assert len(set(re.findall(r"\b[0-9a-f]{64}\b", message))) == 2


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, GOLDEN, RELEASE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ReleaseMismatch, match=f"{name}: No such file"):
        load_release(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dimension", 0), ("name", "../elsewhere"), ("model_sha256", "short"), ("precision", "float8"), ("extra", 1)],
)
def test_a_wrong_field_is_named(folder: Path, field: str, value: object) -> None:
    edit(folder, **{field: value})
    with pytest.raises(ReleaseMismatch, match=f"{RELEASE}: {field}: "):
        load_release(folder)


def test_release_json_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / RELEASE).write_bytes(b"\xff{")
    with pytest.raises(ReleaseMismatch, match=RELEASE):
        load_release(folder)


def test_a_model_of_another_dimension_is_refused(folder: Path) -> None:
    edit(folder, dimension=768)
    with pytest.raises(ReleaseMismatch, match="gives 384 numbers a text, expected 768"):
        OnnxEncoder(folder)


def test_a_release_survives_json() -> None:
    text = SHIPPED.model_dump_json(by_alias=True)
    assert json.loads(text)["recall"]["lambda"] == SHIPPED.recall.lambda_
    assert Release.model_validate_json(text) == SHIPPED


def test_a_release_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SHIPPED.name = "other"  # type: ignore[misc]


def test_a_tag_is_its_name_aliases_and_description() -> None:
    assert SHIPPED.tag_text("sauna", ["steam bath", "löyly"], "A hot room.") == "sauna\nsteam bath, löyly\nA hot room."


def test_empty_lines_are_left_out() -> None:
    assert SHIPPED.tag_text("sauna") == "sauna"
    assert SHIPPED.tag_text("sauna", [], "A hot room.") == "sauna\nA hot room."


@given(name=st.text(), alias=st.text(min_size=1), description=st.text())
def test_braces_in_a_tag_mean_nothing(name: str, alias: str, description: str) -> None:
    name, alias = f"{{description}}{name}{{0.__class__}}", f"{{name}}{alias}%s{{"
    lines = [line.strip() for line in (name, alias, description)]
    assert SHIPPED.tag_text(name, [alias], description) == "\n".join(line for line in lines if line)


def test_a_template_may_hold_words_of_its_own() -> None:
    release = SHIPPED.model_copy(update={"tag_template": "subject: {name} ({aliases})\n{unknown}"})
    assert release.tag_text("sauna", ["löyly"]) == "subject: sauna (löyly)\n{unknown}"


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [("Saunas", "Hot rooms.", "Saunas\nHot rooms."), ("Saunas", "", "Saunas"), (" ", "Hot.\n", "Hot."), ("", "", "")],
)
def test_a_content_is_its_title_and_text(title: str, text: str, expected: str) -> None:
    assert content_text(title, text) == expected
