"""The tests of models/ need the extra `train`: without torch they are skipped, and fail when CI=true.

Beside that a cut of examples/ that is tagged and trained on in seconds.
"""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if os.environ.get("CI") != "true" and importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py", "*/test_*.py"]

EXAMPLES = Path(__file__).parents[2] / "examples"


def some(name: str, count: int) -> Iterator[dict[str, object]]:
    with (EXAMPLES / name).open(encoding="utf-8") as file:
        for line, _ in zip(file, range(count), strict=False):
            yield json.loads(line)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred titles and their tags."""
    place: Path = tmp_path_factory.mktemp("corpus")
    splits = {
        "train": list(some("exemplars.jsonl", 240)),
        "val": list(some("calibration.jsonl", 40)),
        "test": [
            {**content, "accepted": answer["accepted"]}
            for content, answer in zip(some("content.jsonl", 30), some("answers.jsonl", 30), strict=True)
        ],
    }
    used = {tag for rows in splits.values() for row in rows for tag in row["accepted"]}  # type: ignore[attr-defined]
    tags = [tag for tag in some("tags.jsonl", 10_000) if tag["id"] in used]
    for name, rows in {**splits, "tags": tags}.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture(scope="module")
def one_thread() -> None:
    """Torch computes on one thread: on more, a toy model waits for them most of the time."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of the toy set."""
    from tests.models.toy import toy_encoder

    return toy_encoder(tmp_path_factory.mktemp("toy") / "base")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy set."""
    from tests.models.toy import toy_corpus

    return toy_corpus(tmp_path_factory.mktemp("toy") / "corpus")
