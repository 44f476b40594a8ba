"""The cross-encoder on a real tritonserver: the scores of the process, by servers that have this one and no other.

Its model is one that needs no training.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient, InferInput

from tagbus.stream.app.data.examples import example
from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.encoder.release import MODEL, TOKENIZER
from tagbus.stream.errors import DependencyDown, ReleaseMismatch, Untaggable, UserError
from tagbus.stream.local.triton import TritonServer, default_repository
from tagbus.stream.onnx_runtime import onnxruntime
from tagbus.stream.rank.cross_encoder import COMPONENT, CrossEncoderPart
from tagbus.stream.rank.cross_encoder.model import MANIFEST, NAME, OUTPUT, OnnxCrossEncoder
from tagbus.stream.rank.cross_encoder.pairs import INPUTS, Pair, PairReader
from tagbus.stream.rank.cross_encoder.triton import LENGTHS, REQUEST, TritonCrossEncoder
from tagbus.stream.recall.component import Surroundings
from tests.triton.conftest import Start
from tests.triton.harness import again, described, executions, found, read_config, requests

CONFIG = read_config(default_repository() / "cross_encoder" / "config.pbtxt")
PAIRS = [("tea", "A history of tea"), ("soil", "Tea"), ("fishing rights", "Fishing rights in the Baltic Sea")]
NOWHERE = "127.0.0.1:1"
SOIL = "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands. "
Open = Callable[..., Awaitable[TritonCrossEncoder]]


@pytest.fixture
def folder(learnt_repository: Path, tmp_path: Path) -> Path:
    """The cross-encoder of the repository without its model."""
    source = learnt_repository / NAME / "1"
    return Path(shutil.copytree(source, tmp_path / NAME, ignore=shutil.ignore_patterns(MODEL)))


@pytest_asyncio.fixture
async def open_one(folder: Path) -> AsyncIterator[Open]:
    """Open the cross-encoder of that folder as the worker does, closed at the end of the test."""
    opened: list[CrossEncoderPart] = []

    async def make(
        address: str | None, deadline: float = 60.0, encoder: str = NOWHERE, **changes: object
    ) -> TritonCrossEncoder:
        section = COMPONENT.section({"kind": "triton", "folder": folder, "address": address, **changes})
        settings = Settings.model_construct(encoder=EncoderSettings(address=encoder, deadline_seconds=deadline))
        part = await COMPONENT.open(section, cast(Surroundings, SimpleNamespace(settings=settings)))
        assert isinstance(part, CrossEncoderPart)
        opened.append(part)
        assert isinstance(part.cross_encoder, TritonCrossEncoder)
        return part.cross_encoder

    yield make
    for one in opened:
        await one.close()


class Spoilt:
    """A reader that gives some pairs a token that no model has: the run that holds one fails."""

    def __init__(self, reader: PairReader, bad: Sequence[Pair]) -> None:
        self._reader, self._bad = reader, bad

    def tokens(self, pairs: Sequence[Pair]) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                ids=[1_000_000] * len(one.ids) if pair in self._bad else one.ids,
                attention_mask=one.attention_mask,
                type_ids=one.type_ids,
            )
            for pair, one in zip(pairs, self._reader.tokens(pairs), strict=True)
        ]


def spoil(cross_encoder: TritonCrossEncoder, *bad: Pair) -> None:
    cross_encoder._reader = Spoilt(cross_encoder._reader, bad)  # type: ignore[assignment]


def many(count: int) -> list[Pair]:
    """Pairs of real titles, of every length that requests are padded to, one in three right."""
    titles = [json.loads(line)["title"] for line in example("exemplars.jsonl").read_text().splitlines()[: 8 * count]]
    texts = [" ".join(titles[number : number + 1 + number % 8]) for number in range(count)]
    return [(text[: 10 + number % 30] if number % 3 else titles[number - 1], text) for number, text in enumerate(texts)]


def test_names_shapes_and_types_are_the_taggers(learnt_repository: Path) -> None:
    session = onnxruntime.InferenceSession(learnt_repository / "cross_encoder" / "1" / MODEL)
    assert described(CONFIG.input) == found(session.get_inputs())
    assert described(CONFIG.output) == found(session.get_outputs())
    assert [one.name for one in CONFIG.input] == list(INPUTS)
    assert [one.name for one in CONFIG.output] == [OUTPUT]


def test_each_length_is_warmed_with_the_least_the_usual_and_the_largest_batch() -> None:
    warmed = {(one.batch_size, *one.inputs[INPUTS[0]].dims) for one in CONFIG.model_warmup}
    ends = {1, max(CONFIG.dynamic_batching.preferred_batch_size), CONFIG.max_batch_size}
    assert warmed == {(batch, length) for batch in ends for length in (32, 64, 96)}
    for one in CONFIG.model_warmup:
        assert one.inputs.keys() == set(INPUTS)


def test_triton_gives_what_the_process_gives(learnt: TritonServer, learnt_repository: Path) -> None:
    folder = learnt_repository / "cross_encoder" / "1"
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.enable_padding(length=32)
    tokens = tokenizer.encode_batch(PAIRS)
    columns = ([one.ids for one in tokens], [one.attention_mask for one in tokens], [one.type_ids for one in tokens])
    feed = {name: np.array(column) for name, column in zip(INPUTS, columns, strict=True)}
    (expected,) = onnxruntime.InferenceSession(folder / MODEL).run([OUTPUT], feed)

    inputs = []
    for name, values in feed.items():
        inputs.append(InferInput(name, list(values.shape), "INT64"))
        inputs[-1].set_data_from_numpy(values)
    with InferenceServerClient(learnt.address) as client:
        scores = client.infer("cross_encoder", inputs, model_version="1").as_numpy(OUTPUT)

    assert expected.tolist() == [1, 0, 1]
    np.testing.assert_allclose(scores, expected[:, None], atol=1e-6)


def test_a_folder_that_is_no_model_disturbs_nobody(learnt: TritonServer) -> None:
    """`ranker` has no configuration, because the worker alone reads it."""
    with InferenceServerClient(learnt.address) as client:
        states = {one.name: one.state for one in client.get_model_repository_index().models}
        assert client.is_server_ready()
    assert states["heads"] == states["cross_encoder"] == "READY"
    assert states.get("ranker", "") != "READY"


def test_the_defaults_are_those_of_the_repository() -> None:
    chosen = COMPONENT.section({})
    versions = list(CONFIG.version_policy.specific.versions)
    assert (chosen.kind, chosen.model, [chosen.version]) == ("in_process", CONFIG.name, versions)
    assert CONFIG.max_batch_size == REQUEST.rows
    assert {one.inputs[INPUTS[0]].dims[0] for one in CONFIG.model_warmup} == set(LENGTHS)


async def test_four_hundred_pairs_have_the_scores_of_the_process(
    learnt: TritonServer, learnt_repository: Path, open_one: Open
) -> None:
    pairs = [*many(396), ("", ""), ("tea", ""), ("tea", "tea " * 100_000), (SOIL * 10, SOIL)]
    here = OnnxCrossEncoder.load(learnt_repository / NAME / "1", 2)
    expected = await here.rate(pairs)
    await here.close()
    there = await open_one(learnt.address)
    before, answered = executions(learnt.address, NAME), requests("answered", NAME)

    found = await there.rate(pairs)
    alone = [(await there.rate([pair])).item() for pair in pairs[-6:]]

    assert executions(learnt.address, NAME) > before
    assert requests("answered", NAME) - answered >= len(pairs) / REQUEST.rows
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(alone, expected[-6:], atol=1e-6)
    assert 0 < expected.mean() < 1
    assert {batch.feed[INPUTS[0]].shape[1] for batch in there._batches(pairs)} == set(LENGTHS)
    assert (await there.rate([])).shape == (0,)


async def test_without_an_address_of_its_own_it_is_where_the_encoder_is(learnt: TritonServer, open_one: Open) -> None:
    there = await open_one(None, encoder=learnt.address)
    assert (await there.rate([("tea", "Tea")])).tolist() == [1.0]
    assert REGISTRY.get_sample_value("tagbus_triton_servers", {"model": NAME}) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": "halved"},
            r"is not cross_encoder-[0-9a-f]{8}: golden pair 'fishing rights', 'A .* score of 0\.5000",
        ),
        ({"model": "heads"}, "INVALID_ARGUMENT: .*; expected cross_encoder-"),
        ({"model": "nobody"}, "unknown model: 'nobody'"),
        ({"version": 7}, "version 7 is not found"),
    ],
)
async def test_a_server_of_another_cross_encoder_is_refused_by_name(
    learnt: TritonServer, open_one: Open, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ReleaseMismatch, match=words) as caught:
        await open_one(learnt.address, **changes)
    assert learnt.address in str(caught.value)


async def test_without_golden_pairs_it_is_for_the_process_alone(folder: Path, open_one: Open) -> None:
    about = json.loads((folder / MANIFEST).read_text())
    del about["golden"]
    (folder / MANIFEST).write_text(json.dumps(about))
    with pytest.raises(
        UserError,
        match=r"cross_encoder\.json: golden: missing.*`tagbus train cross-encoder`.*CROSS_ENCODER__KIND=in_process",
    ):
        await open_one(NOWHERE)


async def test_another_form_of_address_is_refused(open_one: Open) -> None:
    with pytest.raises(UserError, match=r"TAGBUS_COMPONENTS__CROSS_ENCODER__ADDRESS='triton': expected host:port"):
        await open_one("triton")


async def test_without_tritons_client_it_says_what_to_install(open_one: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tagbus.stream.rank.cross_encoder.triton")
    for name in ("triton", "client", "isolation", "balance", "endpoint"):
        monkeypatch.delitem(sys.modules, f"tagbus.stream.encoder.{name}")
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(UserError, match=r"TAGBUS_COMPONENTS__CROSS_ENCODER__KIND=triton needs .*'tagbus\[triton\]'"):
        await open_one(NOWHERE)


async def test_a_pair_that_fails_the_model_is_poison_and_its_neighbours_are_not(
    learnt: TritonServer, open_one: Open
) -> None:
    there = await open_one(learnt.address)
    bad = ("tea", "bad tea")
    spoil(there, bad)
    failed = requests("failed", NAME)

    with pytest.raises(
        Untaggable, match=r"text: 'bad tea' is wrong, expected a text that .* beside the tag 'tea' \(.*out of data"
    ) as caught:
        await there.rate([("soil", "Soil"), bad, ("bees", "Tea")])

    assert caught.value.stage == NAME
    assert requests("failed", NAME) - failed == 1 + 3
    assert (await there.rate([("soil", "Soil"), ("bees", "Tea")])).tolist() == [1.0, 0.0]


async def test_one_failure_proves_nothing(learnt: TritonServer, open_one: Open) -> None:
    """Given another worker whose poison Triton merges with our requests, then our pairs are scored all the same."""
    ours, theirs = await open_one(learnt.address), await open_one(learnt.address)
    pairs = [("tea", f"Tea, volume {number}") for number in range(24)]
    spoil(theirs, *pairs[:4])

    async def poison(pair: Pair) -> None:
        with pytest.raises(Untaggable):
            await theirs.rate([pair])

    failing = asyncio.gather(*(poison(pair) for pair in pairs[:4]))
    found = await asyncio.gather(*(ours.rate([pair]) for pair in pairs))
    await failing

    assert np.concatenate(found).tolist() == [1.0] * len(pairs)


async def test_when_the_golden_pair_fails_too_it_is_not_the_content(learnt: TritonServer, open_one: Open) -> None:
    there = await open_one(learnt.address)
    spoil(there, ("tea", "bad"))
    there._isolation._canary = there._batches([("tea", "bad")])[0].feed
    with pytest.raises(DependencyDown, match="not even a golden text is encoded"):
        await there.rate([("tea", "bad")])


async def test_killed_and_restarted_between_calls(learnt_repository: Path, start: Start, open_one: Open) -> None:
    """Given a server that is gone, then no content is set aside, and the next call after its return has the scores."""
    server = start(learnt_repository, (NAME,))
    there = await again(server, lambda: open_one(server.address, deadline=20.0))
    before = await there.rate(many(40))

    server.kill()
    with pytest.raises(DependencyDown, match="no Triton at"):
        await there.rate(many(40))
    await asyncio.to_thread(server.restart)

    assert (await again(server, lambda: there.rate(many(40)))).tolist() == before.tolist()
