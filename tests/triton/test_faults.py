"""What goes wrong with a server, and what the encoder makes of it: nothing is lost, and it goes on by itself."""

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tagbus.stream.encoder.endpoint import Busy, Endpoint, Late, Tensors, Wanted
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import MODEL, default_folder, load_release
from tagbus.stream.encoder.tokens import TextReader
from tagbus.stream.encoder.triton import OUTPUT, TritonEncoder, _feed
from tagbus.stream.errors import DependencyDown, ReleaseMismatch, Untaggable
from tagbus.stream.local.triton import TritonServer
from tests.triton.conftest import Open, Start
from tests.triton.harness import Config, again, copy_repository, edit_config, executions, model_pids, requests, settings

TEXTS = [f"Fishing rights in the Baltic Sea, volume {number}" for number in range(120)]
RELEASE = load_release(default_folder())
WANTED = Wanted(RELEASE.name, {OUTPUT: ("float32", (RELEASE.dimension,))})


def batch(texts: int, length: int) -> Tensors:
    shape = (texts, length)
    return {"input_ids": np.full(shape, 100, np.int64), "attention_mask": np.ones(shape, np.int64)}


async def until_asked(server: TritonServer, before: int) -> None:
    while executions(server.address) == before:
        await asyncio.sleep(0.005)


class Spoilt:
    """A tokenizer that gives some texts a token that no model has: the run that holds it fails."""

    def __init__(self, reader: TextReader, bad: Sequence[str]) -> None:
        self._reader, self._bad = reader, bad
        self.read = reader.read

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            [1_000_000] * len(ids) if text in self._bad else ids
            for text, ids in zip(texts, self._reader.tokens(texts), strict=True)
        ]


def spoil(encoder: TritonEncoder, *bad: str) -> None:
    encoder._reader = Spoilt(encoder._reader, bad)  # type: ignore[assignment]


async def test_killed_in_mid_batch_and_restarted(
    repository: Path, start: Start, open_encoder: Open, in_process: OnnxEncoder
) -> None:
    """Given a call in flight, when the server loses power and comes back, then the call ends with every vector."""
    server = start(repository)
    encoder = await open_encoder(server.address, in_flight=4)
    before = executions(server.address)
    call = asyncio.create_task(encoder.encode(TEXTS))
    await until_asked(server, before)

    server.kill()
    await asyncio.sleep(0)
    assert not call.done()
    await asyncio.to_thread(server.restart)

    np.testing.assert_allclose(await call, await in_process.encode(TEXTS), atol=1e-5)


async def test_a_server_that_stays_away_is_a_dependency_that_is_down(
    repository: Path, start: Start, open_encoder: Open
) -> None:
    server = start(repository)
    encoder = await open_encoder(server.address, deadline_seconds=3)
    server.kill()
    with pytest.raises(DependencyDown, match=r"no Triton at 127\.0\.0\.1:\d+: .*UNAVAILABLE"):
        await encoder.encode(TEXTS)
    with pytest.raises(DependencyDown, match="no Triton at"):
        await open_encoder(server.address, deadline_seconds=0.5)
    await asyncio.to_thread(server.restart)
    assert len(await again(server, lambda: encoder.encode(TEXTS[:1]))) == 1


async def test_a_server_that_hangs_is_given_up_at_the_deadline_and_taken_again_when_it_answers(
    repository: Path, start: Start, open_encoder: Open
) -> None:
    server = start(repository)
    encoder = await open_encoder(server.address, deadline_seconds=10)
    # Not its backend's processes: it looks whether they are alive when it wakes up, and they would not be yet.
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DependencyDown):
            await encoder.encode(["Tea"])
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert len(await again(server, lambda: encoder.encode(["Tea"]))) == 1


async def test_dead_processes_behind_a_ready_model_are_noticed_and_are_no_poison(
    repository: Path, start: Start, open_encoder: Open
) -> None:
    """With one of two dead every other request fails, a canary may pass in between, and no text is to blame."""
    server = start(repository)
    encoder = await open_encoder(server.address, deadline_seconds=10)
    first, second = model_pids(server.pid, "encoder")
    os.kill(first, signal.SIGKILL)
    for text in TEXTS[:2]:
        with suppress(DependencyDown):
            assert len(await encoder.encode([text])) == 1

    os.kill(second, signal.SIGKILL)
    with InferenceServerClient(server.address) as client:
        with pytest.raises(DependencyDown, match="not healthy"):
            await encoder.encode(["Tea"])
        assert client.is_server_ready()
        assert client.is_model_ready("encoder", "1")
        client.unload_model("encoder")
        client.load_model("encoder")
    assert len(await again(server, lambda: encoder.encode(["Tea"]))) == 1


async def test_a_full_queue_is_not_a_server_that_is_down(tmp_path: Path, start: Start, open_encoder: Open) -> None:
    """Given a queue of one, when a hundred requests come, then few are repeated and the server stays in use."""
    folder = copy_repository(tmp_path, instances=1)

    def narrow(config: Config) -> None:
        config.dynamic_batching.default_queue_policy.max_queue_size = 1
        del config.dynamic_batching.preferred_batch_size[:]

    edit_config(folder, "encoder", narrow)
    server = start(folder)
    encoder = await open_encoder(server.address, in_flight=100)
    answered, busy, down = requests("answered"), requests("busy"), requests("down")

    outcomes = await asyncio.gather(*(encoder.encode([text]) for text in TEXTS[:100]), return_exceptions=True)

    refused = [one for one in outcomes if isinstance(one, BaseException)]
    assert refused
    assert all(isinstance(one, DependencyDown) and "Exceeds maximum queue size" in str(one) for one in refused)
    assert len(outcomes) - len(refused) == requests("answered") - answered
    assert requests("down") == down
    # One try each, one repeated try to begin with, and one for every twenty answers.
    tries = requests("busy") - busy + requests("answered") - answered
    assert tries - 100 <= 2 + 0.05 * (len(outcomes) - len(refused))
    assert len(await encoder.encode(["Tea"])) == 1


async def test_what_expired_in_the_queue_is_not_executed(tmp_path: Path, start: Start) -> None:
    """Given a server busy with a large request, when others give up meanwhile, then they are never run."""
    server = start(copy_repository(tmp_path, instances=1))
    endpoint = Endpoint(server.address, "127.0.0.1", settings(server.address), WANTED)
    before = executions(server.address)
    large = asyncio.create_task(endpoint.infer(batch(16, 256), 60))
    await asyncio.sleep(0.1)

    impatient = await asyncio.gather(*(endpoint.infer(batch(1, 128), 0.2) for _ in range(8)), return_exceptions=True)

    assert all(isinstance(one, Late | Busy) for one in impatient)
    await large
    await endpoint.infer(batch(1, 16), 60)
    async with asyncio.timeout(120):
        while executions(server.address) - before < 2:  # an answer is out before it is counted
            await asyncio.sleep(0.01)
    assert executions(server.address) - before == 2
    await endpoint.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "other"}, r"is not release minilm-l6-f16-1: golden text '.*' has a cosine of"),
        ({"model": "narrow"}, r"gives float32 \[\d+, 8\] as sentence_embedding, expected float32 \[\d+, 384\]"),
        ({"model": "nobody"}, "unknown model: 'nobody'"),
        ({"version": 7}, "version 7 is not found"),
        ({"model": "embed"}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_server_of_another_release_is_refused_by_name(
    triton: TritonServer, open_encoder: Open, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ReleaseMismatch, match=words) as caught:
        await open_encoder(triton.address, **changes)
    assert triton.address in str(caught.value)


async def test_one_server_of_another_release_among_good_ones_is_named(
    triton: TritonServer, tmp_path: Path, start: Start, open_encoder: Open, repository: Path
) -> None:
    folder = copy_repository(tmp_path, instances=1)
    shutil.copy(repository / "other" / "1" / MODEL, folder / "encoder" / "1" / "other.onnx")
    (folder / "encoder" / "1" / "other.onnx").replace(folder / "encoder" / "1" / MODEL)
    impostor = start(folder)
    with pytest.raises(ReleaseMismatch, match=f"^{impostor.address} model encoder version 1 is not release"):
        await open_encoder(f"{triton.address},{impostor.address}")


async def test_a_broken_new_version_is_refused_while_the_old_one_serves(
    repository: Path, triton: TritonServer, open_encoder: Open
) -> None:
    encoder = await open_encoder(triton.address)
    folder, config = repository / "encoder" / "2", repository / "encoder" / "config.pbtxt"
    complete = config.read_text()
    folder.mkdir()
    (folder / MODEL).write_bytes(b"no model")
    edit_config(repository, "encoder", lambda config: config.version_policy.specific.versions.append(2))
    done = asyncio.Event()

    async def serve() -> int:
        served = 0
        while not done.is_set():
            served += len(await encoder.encode(TEXTS[:8]))
        return served

    serving = asyncio.create_task(serve())
    try:
        with (
            InferenceServerClient(triton.address) as client,
            pytest.raises(InferenceServerException, match="version 2 is at UNAVAILABLE state"),
        ):
            await asyncio.to_thread(client.load_model, "encoder")
    finally:
        done.set()
        config.write_text(complete)
        shutil.rmtree(folder)
    assert await serving > 0
    assert len(await encoder.encode(["Tea"])) == 1


async def test_a_text_that_fails_the_model_is_poison_and_its_neighbours_are_not(
    triton: TritonServer, open_encoder: Open, in_process: OnnxEncoder
) -> None:
    encoder = await open_encoder(triton.address, cache=100)
    spoil(encoder, "bad")
    failed = requests("failed")

    with pytest.raises(Untaggable, match=r"'bad' is wrong, expected a text that the encoder takes .*out of data"):
        await encoder.encode(["Tea", "bad", "Saunas"])

    assert requests("failed") - failed == 1 + 3
    answered = requests("answered")
    np.testing.assert_allclose(
        await encoder.encode(["Tea", "Saunas"]), await in_process.encode(["Tea", "Saunas"]), atol=1e-5
    )
    assert requests("answered") == answered, "what was encoded beside it is kept"


async def test_one_failure_proves_nothing(triton: TritonServer, open_encoder: Open, in_process: OnnxEncoder) -> None:
    """Given another worker whose poison Triton merges with our requests, then our texts are encoded all the same."""
    ours, theirs = await open_encoder(triton.address, in_flight=32), await open_encoder(triton.address, in_flight=32)
    spoil(theirs, *TEXTS)

    async def poison(text: str) -> None:
        with pytest.raises(Untaggable):
            await theirs.encode([text])

    failing = asyncio.gather(*(poison(text) for text in TEXTS[:16]))
    found = await asyncio.gather(*(ours.encode([text]) for text in TEXTS[:64]))
    await failing

    np.testing.assert_allclose(np.concatenate(found), await in_process.encode(TEXTS[:64]), atol=1e-5)


async def test_when_the_canary_fails_too_it_is_not_the_text(triton: TritonServer, open_encoder: Open) -> None:
    encoder = await open_encoder(triton.address)
    spoil(encoder, "bad")
    encoder._isolation._canary = _feed(encoder._cut(["bad"])[0])
    with pytest.raises(DependencyDown, match="not even a golden text is encoded"):
        await encoder.encode(["bad"])
