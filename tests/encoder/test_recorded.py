"""A release is served only where its folder holds what the topic `releases` recorded."""

from pathlib import Path

import pytest

from tagbus.stream.encoder.release import GOLDEN, MODEL, RELEASE, TOKENIZER, default_folder, load_recorded, load_release
from tagbus.stream.errors import ReleaseMismatch

SHIPPED = load_release(default_folder())
OTHER = "0" * 64


def test_the_recorded_one_is_loaded() -> None:
    assert load_recorded(default_folder(), SHIPPED) == SHIPPED


@pytest.mark.parametrize(
    ("field", "value", "file"),
    [
        ("model_sha256", OTHER, MODEL),
        ("tokenizer_sha256", OTHER, TOKENIZER),
        ("golden_sha256", OTHER, GOLDEN),
        ("tag_template", "{name}", f"{RELEASE}: tag_template"),
        ("dimension", 3, f"{RELEASE}: dimension"),
    ],
)
def test_the_file_that_differs_is_named(field: str, value: object, file: str) -> None:
    recorded = SHIPPED.model_copy(update={field: value})
    with pytest.raises(ReleaseMismatch) as caught:
        load_recorded(default_folder(), recorded)
    assert f"{default_folder() / file}" in str(caught.value)
    assert "was recorded with" in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseMismatch, match=r"release\.json: No such file"):
        load_recorded(tmp_path, SHIPPED)
