"""The guided classifier on a real tritonserver: the tags of the process, by a server that has this one and no other.

Its model is one that needs no training.
"""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import pytest_asyncio

from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.encoder.release import MODEL
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.onnx_runtime import onnxruntime
from tagbus.stream.recall.base import Query, Recaller
from tagbus.stream.recall.classifier.model import CONTENTS, LENGTHS, cut
from tagbus.stream.recall.component import Part, Surroundings
from tagbus.stream.recall.gudn import COMPONENT, NAME
from tagbus.stream.recall.gudn.model import MANIFEST, GuidedRecall
from tests.recall.gudn_model import write_gudn
from tests.triton.harness import described, edit_config, executions, found, read_config

CONFIG = read_config(default_repository() / NAME / "config.pbtxt")
TEXTS = [*(f"Fishing rights, volume {number} " * (1 + number % 30) for number in range(150)), ""]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The component's model and a stranger whose tags have other numbers."""
    folder = tmp_path_factory.mktemp("repository")
    for seed, name in enumerate((NAME, "other")):
        shutil.copytree(default_repository() / NAME, folder / name)
        write_gudn(folder / name / "1", seed=seed)
        edit_config(folder, name, lambda config: config.ClearField("model_warmup"))
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, (NAME, "other")) as running:
        yield running


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """What a worker keeps: no model."""
    return Path(shutil.copytree(repository / NAME / "1", tmp_path / NAME, ignore=shutil.ignore_patterns(MODEL)))


@pytest_asyncio.fixture
async def parts() -> AsyncIterator[list[Part]]:
    opened: list[Part] = []
    yield opened
    for one in opened:
        await one.close()


async def opened(parts: list[Part], folder: Path, address: str, **changes: object) -> Recaller:
    section = COMPONENT.section({"kind": "triton", "folder": folder, "address": address, **changes})
    settings = Settings.model_construct(encoder=EncoderSettings(deadline_seconds=60))
    parts.append(await COMPONENT.open(section, cast(Surroundings, SimpleNamespace(settings=settings))))
    return parts[-1].recallers[0]


def query(texts: list[str]) -> Query:
    return Query([], texts, np.zeros((len(texts), 1), np.float32))


def test_names_shapes_and_types_are_those_of_an_export(repository: Path) -> None:
    session = onnxruntime.InferenceSession(repository / NAME / "1" / MODEL)
    assert described(CONFIG.input) == found(session.get_inputs())
    assert described(CONFIG.output) == found(session.get_outputs())
    assert max(len(rows) for rows, _ in cut(np.repeat(LENGTHS, 100))) == CONTENTS == CONFIG.max_batch_size


async def test_texts_have_the_tags_of_the_process(
    server: TritonServer, repository: Path, folder: Path, parts: list[Part]
) -> None:
    here = GuidedRecall.load(repository / NAME / "1")
    expected = await here.recall(query(TEXTS))
    await here.close()

    there = await opened(parts, folder, server.address)
    answers = await there.recall(query(TEXTS))

    assert executions(server.address, NAME) > 0
    for one, other in zip(answers, expected, strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-6)


async def test_a_server_of_another_training_is_refused(server: TritonServer, folder: Path, parts: list[Part]) -> None:
    with pytest.raises(ReleaseMismatch, match=r"is not gudn-[0-9a-f]{8}: golden question \d gives tag number"):
        await opened(parts, folder, server.address, model="other")


async def test_without_golden_answers_no_server_is_asked(server: TritonServer, folder: Path, parts: list[Part]) -> None:
    about = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**about, "golden": None}))
    with pytest.raises(UserError, match=r"golden: missing, .* run `tagbus train gudn` again"):
        await opened(parts, folder, server.address)
