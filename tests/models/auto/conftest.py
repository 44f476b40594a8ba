"""A run on a small cut of the examples, which was stopped between two folds and taken up again."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tagbus.models.auto.command import command
from tagbus.models.rank.candidates import Recipe
from tests.models.conftest import some

MINUTES = 10
NAME = "auto-1"
TAGS = 40


class Stopped(Exception):
    """Somebody ended the process."""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 titles to train on, and their 40 most frequent tags; a tenth of the training and validation contents have no
    tag."""
    place: Path = tmp_path_factory.mktemp("small")
    known = list(some("exemplars.jsonl", 600))
    counts = Counter(tag for row in known for tag in accepted(row))
    chosen = [tag for tag, _ in counts.most_common(TAGS)]
    known = [{**row, "accepted": kept} for row in known if (kept := [tag for tag in accepted(row) if tag in chosen])]
    known[:140] = [row if number % 10 else {**row, "accepted": []} for number, row in enumerate(known[:140])]
    tags = [tag for tag in some("tags.jsonl", 10_000) if tag["id"] in chosen]
    for name, part in {"tags": tags, "train": known[:80], "val": known[80:140], "test": known[140:170]}.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return place


def accepted(row: Mapping[str, object]) -> list[str]:
    found = row["accepted"]
    assert isinstance(found, list)
    return found


@contextmanager
def few() -> Iterator[pytest.MonkeyPatch]:
    """Less of everything than a run of a user takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagbus.models.auto.choice.LEAST", 50)
        patch.setattr("tagbus.models.auto.steps.FOLDS", 2)
        patch.setattr("tagbus.models.auto.steps.TREES", 50)
        for module in ("auto.steps", "rank.out_of_fold"):
            patch.setattr(f"tagbus.models.{module}.Recipe", partial(Recipe, seeds=1))
        yield patch


@dataclass(frozen=True)
class Made:
    """A release, and when each model of its run was written: at the interruption and at the end."""

    release: Path
    before: dict[str, int]
    after: dict[str, int]

    @property
    def work(self) -> Path:
        return self.release.parent / f".{NAME}.training"


@pytest.fixture(scope="session")
def made(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    to = tmp_path_factory.mktemp("releases") / NAME
    with few() as patch:
        with patch.context() as stopping:
            stopping.setattr("tagbus.models.rank.out_of_fold.train", _stop)
            with pytest.raises(Stopped):
                command(str(small), to, MINUTES)
        assert not to.exists()
        before = written(to)
        command(str(small), to, MINUTES)
    return Made(to, before, written(to))


def _stop(*arguments: object) -> None:
    raise Stopped


def written(to: Path) -> dict[str, int]:
    """The heads and the candidates of a run."""
    work = to.parent / f".{to.name}.training"
    found = [path for name in ("heads.onnx", "candidates.npz") for path in work.rglob(name)]
    return {str(path.relative_to(work)): path.stat().st_mtime_ns for path in found if "release" not in path.parts}
