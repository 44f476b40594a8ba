"""A run on a toy set: it learns, resumes, is exported, and what is exported is a component."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import typer
from typer.testing import CliRunner

from tagbus.models.data.corpus import open_corpus
from tagbus.models.gudn import run
from tagbus.models.gudn.command import command
from tagbus.models.gudn.plan import Plan
from tagbus.models.gudn.run import ranked, read, train
from tagbus.stream import quality
from tagbus.stream.errors import UserError
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.gudn.model import GuidedRecall, read_manifest
from tests.models.toy import journal

pytestmark = pytest.mark.usefixtures("one_thread")


def plan(corpus: Path, base: Path, **changes: object) -> Plan:
    known: dict[str, object] = {"corpus": str(corpus), "base": str(base), "text_layers": 1, "label_layers": 2}
    known |= {"batch": 16, "tokens": 16, "epochs": 10, "rate": 5e-3, "head_rate": 0.02}
    return Plan.model_validate(known | changes)


@pytest.mark.parametrize("changes", [{}, {"variant": "code", "text_layers": 2, "labels": "disordered", "negatives": 2}])
def test_it_learns_the_toy_set(base: Path, corpus: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    network, texts = train(open_corpus(str(corpus)), plan(corpus, base, **changes), tmp_path)

    found = ranked(network, texts.held)
    assert quality.precision_at(found, texts.held.truth.lists(), 1) > 80
    lines = journal(tmp_path)
    evaluated = [line for line in lines if "ndcg_at_5" in line]
    assert len(evaluated) == 10
    assert any({"class", "feature", "link"} < line.keys() for line in lines)
    # The best epoch is kept, whichever it is.
    propensity = np.ones(len(texts.ids))
    kept = quality.measure(found, texts.held.truth.lists(), propensity)
    assert round(kept.ndcg_at_5, 2) == max(line["ndcg_at_5"] for line in evaluated)


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disordered labels and dropout included."""
    monkeypatch.setattr(run, "SAVE_STEPS", 2)
    made = plan(corpus, base, labels="disordered", steps=12)
    whole, _ = train(open_corpus(str(corpus)), made, tmp_path / "whole")

    step, steps = run.step, []

    def killed(*arguments: object) -> dict[str, torch.Tensor]:
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(1)
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(open_corpus(str(corpus)), made, tmp_path / "cut")
    monkeypatch.setattr(run, "step", step)
    again, _ = train(open_corpus(str(corpus)), made, tmp_path / "cut")

    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


def test_a_training_that_diverges_leaves_no_model(base: Path, corpus: Path, tmp_path: Path) -> None:
    """Given a learning rate that is far too high, then the run ends with an error, as does one that resumes it."""
    made = plan(corpus, base, rate=1e30, steps=3)
    for _ in range(2):
        with pytest.raises(UserError, match="loss class is nan, so the training has diverged: take a lower learning"):
            train(open_corpus(str(corpus)), made, tmp_path)
    assert not (tmp_path / run.BEST).exists()


def test_the_set_of_tags_is_closed(base: Path, corpus: Path, tmp_path: Path) -> None:
    """Only tags that a training content carries are known."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    tags = [
        *(json.loads(line) for line in (corpus / "tags.jsonl").read_text().splitlines()),
        {"id": "new", "name": "n"},
    ]
    (folder / "tags.jsonl").write_text("".join(json.dumps(tag) + "\n" for tag in tags))
    (folder / "train.jsonl").write_text((corpus / "train.jsonl").read_text())
    (folder / "val.jsonl").write_text(json.dumps({"id": "v", "text": "tea", "accepted": ["new"]}) + "\n")

    texts = read(open_corpus(str(folder)), plan(folder, base))

    assert "new" not in texts.ids
    assert (len(texts.ids), len(texts.held)) == (6, 0)


async def test_the_command_leaves_a_component_that_reads_texts_alone(base: Path, corpus: Path, tmp_path: Path) -> None:
    """A few steps from the command line, as a machine is tried out with; the ONNX model has no input for labels."""
    app = typer.Typer()
    app.command()(command)
    options = ["--base", str(base), "--text-layers", "1", "--label-layers", "2", "--tokens", "16", "--steps", "4"]
    done = CliRunner().invoke(app, [str(corpus), "--out", str(tmp_path / "gudn"), *options, "--most", "60"])
    assert done.exit_code == 0, done.output

    manifest = read_manifest(tmp_path / "gudn")
    assert f"{manifest.name}, 6 tags, trained on 60 contents" in done.output
    model = onnx.load(tmp_path / "gudn" / "model.onnx")
    assert [one.name for one in model.graph.input] == ["input_ids", "attention_mask"]
    recall = GuidedRecall.load(tmp_path / "gudn")
    texts = ["tea coffee", "", "a choir " * 200, "dog"]
    found = await recall.recall(Query([], texts, np.zeros((4, 1), np.float32)))
    alone = [(await recall.recall(Query([], [text], np.zeros((1, 1), np.float32))))[0] for text in texts]
    await recall.close()
    for one, other in zip(found, alone, strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-6)
        assert set(one) == set(manifest.tags)
        assert list(one.values()) == sorted(one.values(), reverse=True)
        assert sum(one.values()) == pytest.approx(1, abs=1e-3)


def test_a_plan_that_does_not_fit_is_told_in_one_line(base: Path, corpus: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    options = ["--base", str(base), "--variant", "code", "--text-layers", "1", "--label-layers", "2"]
    done = CliRunner().invoke(app, [str(corpus), "--out", str(tmp_path / "gudn"), *options])
    assert isinstance(done.exception, UserError)
    assert "--label-layers: Value error, one classifier reads texts and labels" in str(done.exception)


def test_a_corpus_without_contents_is_told(base: Path, tmp_path: Path) -> None:
    (tmp_path / "tags.jsonl").write_text('{"id": "a", "name": "a"}\n')
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UserError, match="has no contents to train on"):
        train(open_corpus(str(tmp_path)), plan(tmp_path, base), tmp_path / "out")


def test_a_base_that_is_no_encoder_is_a_users_mistake(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"nowhere/tokenizer.json cannot be read: .*; expected the folder of an encoder"
    ):
        train(open_corpus(str(corpus)), plan(corpus, tmp_path / "nowhere"), tmp_path / "run")
    # Nothing has begun: with the option mended it may begin here.
    assert not (tmp_path / "run").exists()
