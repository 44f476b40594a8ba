"""Classifier heads on a real tritonserver: the tags of the process, by servers that have these heads and no others."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from tagbus.stream.app import assemble
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places.folders import settings_of
from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.contract.events import Content
from tagbus.stream.contract.release import Served
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder, load_release
from tagbus.stream.errors import DependencyDown, ReleaseMismatch, UserError
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.classifier.model import CONTENTS, LENGTHS, cut
from tagbus.stream.recall.heads import COMPONENT
from tagbus.stream.recall.heads.model import MANIFEST, MODEL, HeadsRecall, feed_of, read_manifest
from tagbus.stream.recall.heads.triton import open_heads as heads_on_triton
from tests.triton.conftest import Start
from tests.triton.harness import again, executions, read_config, requests

FOLDER = default_repository() / "heads"
CONFIG = read_config(FOLDER / "config.pbtxt")
(VERSION,) = CONFIG.version_policy.specific.versions
RELEASE = load_release(default_folder())
# Nothing listens there.
NOWHERE = "127.0.0.1:1"

OpenHeads = Callable[..., Awaitable[HeadsRecall]]


def settings(
    folder: Path, address: str | None, deadline: float = 60.0, encoder: str = NOWHERE, **changes: object
) -> Settings:
    """Heads on Triton, the encoder in the process."""
    section = {"kind": "triton", "folder": folder, "address": address, **changes}
    return Settings.model_construct(
        encoder=EncoderSettings(address=encoder, deadline_seconds=deadline), components={"heads": section}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The heads of the package without their model."""
    shutil.copytree(FOLDER / str(VERSION), tmp_path / "heads", ignore=shutil.ignore_patterns(MODEL))
    return tmp_path / "heads"


@pytest_asyncio.fixture
async def open_heads(folder: Path) -> AsyncIterator[OpenHeads]:
    """Open the heads of that folder as the worker does, closed at the end of the test."""
    opened: list[HeadsRecall] = []

    async def make(address: str | None, **changes: object) -> HeadsRecall:
        given = settings(folder, address, **changes)  # type: ignore[arg-type]
        section = COMPONENT.section(given.components["heads"])
        assert section.folder is not None
        made = await heads_on_triton(section.folder, RELEASE.name, section, given.encoder)
        opened.append(made)
        return made

    yield make
    for one in opened:
        await one.close()


def titles(count: int) -> list[str]:
    lines = example("exemplars.jsonl").read_text().splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


def some_vectors(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    vectors = np.random.default_rng(0).normal(size=(count, RELEASE.dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_configuration_is_that_of_the_heads_beside_it() -> None:
    manifest = read_manifest(FOLDER / str(VERSION))
    assert CONFIG.default_model_filename == MODEL
    assert [one.name for one in CONFIG.input] == ["terms", "weights", "vectors"]
    assert list(CONFIG.input[2].dims) == [manifest.dimension]
    assert {one.name: list(one.dims) for one in CONFIG.output} == {"tags": [manifest.best], "chances": [manifest.best]}
    runs = list(cut(np.repeat(LENGTHS, 100)))
    assert max(len(rows) for rows, _ in runs) == CONTENTS == CONFIG.max_batch_size
    assert {one.batch_size for one in CONFIG.model_warmup} <= set(range(1, CONTENTS + 1))


def test_the_defaults_are_those_of_the_repository() -> None:
    chosen = COMPONENT.section({})
    assert (chosen.kind, chosen.model, chosen.version) == ("in_process", CONFIG.name, VERSION)


async def test_two_hundred_titles_have_the_tags_of_the_process(
    learnt: TritonServer, open_heads: OpenHeads, in_process: OnnxEncoder
) -> None:
    texts = [*titles(200), "", "soil " * 600]
    vectors = await in_process.encode(texts)
    here = HeadsRecall.load(FOLDER / str(VERSION), RELEASE.name)
    expected = await here.recall(Query([], texts, vectors))
    await here.close()
    heads = await open_heads(learnt.address)
    before, answered = executions(learnt.address, "heads"), requests("answered", "heads")

    found = await heads.recall(Query([], texts, vectors))
    alone = [(await heads.recall(Query([], [text], vectors[row : row + 1])))[0] for row, text in enumerate(texts[:5])]

    assert executions(learnt.address, "heads") > before
    assert requests("answered", "heads") > answered
    for one, other in zip([*found, *alone], [*expected, *expected[:5]], strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-6)
        assert next(iter(one)) == next(iter(other))


async def test_without_an_address_of_their_own_they_are_where_the_encoder_is(
    learnt: TritonServer, open_heads: OpenHeads
) -> None:
    heads = await open_heads(None, encoder=learnt.address)
    assert len(await heads.recall(Query([], ["Tea"], some_vectors(1)))) == 1
    assert REGISTRY.get_sample_value("tagbus_triton_servers", {"model": "heads"}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "other"}, r"is not heads-[0-9a-f]{8}: golden question 0 gives tag number \d+ a probability of"),
        ({"model": "cross_encoder"}, r"INVALID_ARGUMENT: .*; expected heads-"),
        ({"model": "nobody"}, "unknown model: 'nobody'"),
        ({"version": 7}, "version 7 is not found"),
    ],
)
async def test_a_server_of_other_heads_is_refused_by_name(
    learnt: TritonServer, open_heads: OpenHeads, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ReleaseMismatch, match=words) as caught:
        await open_heads(learnt.address, **changes)
    assert learnt.address in str(caught.value)
    assert caught.value.exit_code == 6


async def test_answers_of_another_form_are_refused(learnt: TritonServer, folder: Path, open_heads: OpenHeads) -> None:
    """Given heads.json of heads that give 7 tags, when the server gives 60, then it has other heads."""
    about = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(about | {"best": 7}))
    with pytest.raises(ReleaseMismatch, match=r"gives int64 \[4, 60\] as tags, expected int64 \[4, 7\] of heads-"):
        await open_heads(learnt.address)


async def test_heads_without_golden_answers_are_for_the_process_alone(folder: Path, open_heads: OpenHeads) -> None:
    about = json.loads((folder / MANIFEST).read_text())
    del about["golden"]
    (folder / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"heads\.json: golden: missing.*TAGBUS_COMPONENTS__HEADS__KIND=in_process"):
        await open_heads(NOWHERE)


async def test_another_form_of_address_is_refused(open_heads: OpenHeads) -> None:
    with pytest.raises(UserError, match=r"TAGBUS_COMPONENTS__HEADS__ADDRESS='triton': expected host:port"):
        await open_heads("triton")


async def test_where_nobody_listens_the_worker_waits_no_longer_than_the_deadline(open_heads: OpenHeads) -> None:
    with pytest.raises(DependencyDown, match=rf"no Triton at {NOWHERE}: {NOWHERE} model heads version 1: UNAVAILABLE"):
        await open_heads(NOWHERE, deadline=0.5)


async def test_a_server_that_hangs_is_given_up_at_the_deadline_and_taken_again_when_it_answers(
    learnt_repository: Path, start: Start, open_heads: OpenHeads
) -> None:
    server = start(learnt_repository, ("heads",))
    heads = await open_heads(server.address, deadline=2.0)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DependencyDown):
            await heads.recall(Query([], ["Tea"], some_vectors(1)))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert len(await again(server, lambda: heads.recall(Query([], ["Tea"], some_vectors(1))))) == 1


async def test_what_the_model_fails_on_is_no_poison(learnt: TritonServer, open_heads: OpenHeads) -> None:
    """Given a request that fails each time, when it was tried three times, then it is the server that is down."""
    heads = await open_heads(learnt.address)
    failed = requests("failed", "heads")
    beyond = feed_of(np.full((1, 8), 10**9), np.ones((1, 8), np.float32), some_vectors(1))
    with pytest.raises(DependencyDown, match="out of data bounds"):
        await heads._model.run(beyond)
    assert requests("failed", "heads") - failed == 3
    assert len(await heads.recall(Query([], ["Tea"], some_vectors(1)))) == 1


async def test_killed_and_restarted_between_calls(
    learnt_repository: Path, start: Start, folder: Path, in_process: OnnxEncoder
) -> None:
    """Given a tagger, when its heads' server is gone, then no content is set aside, and it goes on by itself."""
    server = start(learnt_repository, ("heads",))
    content = Content(id="c", title="Beekeeping")
    async with assemble.in_process(settings(folder, server.address, deadline=20.0)) as stack:
        tagger = stack.tagger()
        (before,) = await tagger.tag([content])
        server.kill()
        with pytest.raises(DependencyDown, match="no Triton at"):
            await tagger.tag([content])
        await asyncio.to_thread(server.restart)
        assert await again(server, lambda: tagger.tag([content])) == [before]


def test_the_heads_of_another_release_have_the_version_that_is_recorded_for_it(folder: Path, tmp_path: Path) -> None:
    base = settings(folder, None)
    (tmp_path / "another" / "heads").mkdir(parents=True)

    chosen = settings_of(base, tmp_path / "another", Served(model="encoder", version=2))

    section = COMPONENT.section(chosen.components["heads"])
    assert (section.kind, section.version) == ("triton", 2)
    assert section.folder == tmp_path / "another" / "heads"
    unserved = COMPONENT.section(settings_of(base, tmp_path / "another", None).components["heads"])
    assert unserved.version == COMPONENT.section(base.components["heads"]).version
