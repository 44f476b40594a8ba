"""A run on a tiny model: GGUF in, an adapter that learns, GGUF out, served by llama.cpp with the same answers."""

import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from tagbus.models.journal import JOURNAL, lines
from tagbus.models.train.sft import adapter, run
from tagbus.models.train.sft.examples import Example, decided, examples
from tagbus.models.train.sft.model import Trainable, architecture_of, load
from tagbus.models.train.sft.run import Plan
from tagbus.stream.config import LlmSettings, RetrySettings
from tagbus.stream.errors import UserError
from tagbus.stream.llm import chat
from tagbus.stream.llm.client import Tally, Unlimited
from tagbus.stream.llm.judge import completed, request_of
from tagbus.stream.llm.open import connected, prompts_of
from tagbus.stream.llm.prompts import Rendered
from tagbus.stream.local.judges import LlamaServer
from tests.models.train.sft.tiny import INNER, LAYERS, TAGS, WIDTH, decision, feedback_file, tags_file, tiny_gguf

PROMPTS = prompts_of(LlmSettings())
TAXONOMY = {tag.id: tag for tag in TAGS}
ITEMS = decided([(f"c{number}", decision(number)) for number in range(120)])


def plan(**given: Any) -> Plan:
    fields = {"feedback": "f", "tags": "t", "model": "tiny.gguf", "prompt": "v1", "rate": 0.02, "rank": 4, "alpha": 8}
    return Plan(**{**fields, "epochs": 1, "contents": 60, "tokens": 300, **given})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("sft")
    run.train(ITEMS, TAXONOMY, PROMPTS, plan(), model, to)
    return to


def asked(count: int = 6) -> list[Example]:
    return list(examples(ITEMS[:count], TAXONOMY, PROMPTS))


def with_adapter(model: Path, folder: Path) -> Trainable:
    """The model with what a run wrote."""
    found = load(model, 4, 8, 0)
    kept = {one.name: np.array(one.data) for one in GGUFReader(folder / adapter.GGUF).tensors}
    with torch.no_grad():
        names = [name for name, _ in adapter.tensors(found.model)]
        weights = [one for name, one in found.model.named_parameters() if "lora_" in name]
        for name, weight in zip(names, weights, strict=True):
            weight.copy_(torch.from_numpy(kept[name].reshape(weight.shape)))
    found.model.eval()
    return found


def test_an_adapter_learns_what_people_decided(trained: Path) -> None:
    log = {str(line["phase"]): line for line in lines(trained / JOURNAL)}
    assert float(str(log["after"]["log_loss"])) < float(str(log["before"]["log_loss"]))
    assert not (trained / run.STEPS).exists()


def test_the_adapter_is_a_gguf_of_llama_cpps_form(trained: Path) -> None:
    reader = GGUFReader(trained / adapter.GGUF)
    said = {name: reader.fields[name].contents() for name in reader.fields if not name.startswith("GGUF.")}
    assert said == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    # GGUF names the fastest axis first.
    shapes = {one.name: tuple(int(size) for size in one.shape) for one in reader.tensors}
    assert len(shapes) == LAYERS * 5 * 2
    assert shapes["blk.1.ffn_down.weight.lora_a"] == (INNER, 4)
    assert shapes["blk.1.ffn_down.weight.lora_b"] == (4, WIDTH)
    # Query and key stand in another order in GGUF.
    assert not [name for name in shapes if "attn_q" in name or "attn_k" in name]
    # For vLLM, without a path of this machine.
    assert (trained / "adapter_model.safetensors").exists()
    assert json.loads((trained / "adapter_config.json").read_bytes())["base_model_name_or_path"] == "tiny.gguf"


def test_a_run_that_was_interrupted_gives_the_same_adapter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = asked(12)
    whole = load(model, 4, 8, 0)
    list(run.steps(whole, learnt, plan(batch=4), tmp_path))
    first = load(model, 4, 8, 0)
    going = run.steps(first, learnt, plan(batch=4), tmp_path)
    next(going)
    next(going)
    weights = [one for one in first.model.parameters() if one.requires_grad]
    # As every fiftieth step writes it.
    optimizer = going.gi_frame.f_locals["optimizer"]
    run._checkpoint(tmp_path, weights, optimizer, 8)
    again = load(model, 4, 8, 1)
    list(run.steps(again, learnt, plan(batch=4), tmp_path))
    for (name, one), (_, other) in zip(adapter.tensors(whole.model), adapter.tensors(again.model), strict=True):
        assert one == pytest.approx(other, abs=1e-5), name


def test_a_prompt_does_not_depend_on_those_beside_it(model: Path) -> None:
    found = load(model, 4, 8, 0)
    some = [asked()[0], asked()[2], Example("x", "task", "a question " * 200, right=True)]
    with torch.no_grad():
        together = found.logits(some, 2000)
        alone = torch.cat([found.logits([one], 2000) for one in some])
    assert torch.allclose(together, alone, atol=1e-4)


def test_output_logits_are_float32_in_a_model_of_bfloat16(model: Path) -> None:
    found = load(model, 4, 8, 0)
    found.model.to(torch.bfloat16)
    with torch.no_grad():
        logits = found.logits(asked(1)[:1], 300)[0]
    assert logits.dtype == torch.float32
    # In bfloat16 a third of the tokens have the value of another one.
    assert len(logits.unique()) == len(logits)
    assert len(logits.to(torch.bfloat16).unique()) < 0.7 * len(logits)


async def test_llama_cpp_serves_it_with_the_same_answers(model: Path, trained: Path) -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    example = asked(1)[0]
    found = with_adapter(model, trained)
    with torch.no_grad():
        expected = found.logits([example], 2000)[0].softmax(0)
    server = LlamaServer(model, lora=trained / adapter.GGUF)
    server.start()
    try:
        settings = LlmSettings(url=server.url, profile="llama.cpp", model="tiny")
        at = connected(settings, RetrySettings(), Unlimited())
        rendered = Rendered(example.task, example.question.rpartition("\n\n")[0], ())
        body = chat.one_token(at.profile, None, rendered, example.question.rpartition("\n\n")[2], None)
        answer = await completed(at, request_of(at, body, 500), time.monotonic() + 120, Tally())
        await at.client.close()
    finally:
        server.close()
    assert answer is not None
    said = {one.token: math.exp(one.logprob) for one in answer.tokens[0].top_logprobs}
    words = {word: float(expected[token]) for word, token in zip(("Yes", "No"), found.words, strict=True)}
    assert max(words.values()) > 0.2
    for word, probability in words.items():
        assert said.get(word, 0.0) == pytest.approx(probability, abs=0.02)


def test_the_smoke_form_of_the_command_runs(model: Path, tmp_path: Path) -> None:
    run.command(str(feedback_file(tmp_path, 40)), model, tmp_path / "out", tags=tags_file(tmp_path), rank=2, smoke=True)
    assert (tmp_path / "out" / adapter.GGUF).exists()
    assert (tmp_path / "out" / "plan.json").exists()


def test_mistakes_are_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"^--model .*no\.gguf: .*; expected a model in GGUF$"):
        architecture_of(tmp_path / "no.gguf")
    assert architecture_of(model) == "llama"
    accepted = [one.model_copy(update={"rejected": ()}) for one in ITEMS]
    with pytest.raises(UserError, match="expected accepted ones and rejected ones"):
        run.train(accepted, TAXONOMY, PROMPTS, plan(), model, tmp_path / "out")
