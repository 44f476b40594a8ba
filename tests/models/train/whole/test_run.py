"""A run on a toy set: it learns, teaches, resumes, and what it leaves is exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from tagbus.models.data.corpus import open_corpus
from tagbus.models.data.truth import Truth
from tagbus.models.export.encoder import export
from tagbus.models.train.whole import run
from tagbus.models.train.whole.command import command, numbers
from tagbus.models.train.whole.evaluate import votes
from tagbus.models.train.whole.losses import losses
from tagbus.models.train.whole.plan import Plan
from tagbus.models.train.whole.run import train
from tagbus.stream.errors import UserError
from tagbus.stream.recall.tagvectors import FILE, TagVectors
from tests.models.toy import journal, toy_corpus, toy_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def plan(corpus: Path, base: Path, **changes: object) -> Plan:
    known: dict[str, object] = {"corpus": str(corpus), "base": str(base), "layers": (2, 1), "batch": 16, "rate": 5e-3}
    known |= {"tag_rate": 0.02, "names": 1, "ema": 0.9, "vector_dropout": 0.1, "evaluations": 2, "queue": 1}
    return Plan.model_validate(known | changes)


def test_students_and_their_teacher_learn_the_toy_set(base: Path, corpus: Path, tmp_path: Path) -> None:
    """Given a wider teacher, when trained, then each student's tag vectors and neighbours find the right tags."""
    wide = toy_encoder(tmp_path / "wide", width=48)
    made = plan(corpus, base, teacher=str(wide), teacher_rate=5e-3, steps=120)
    train(open_corpus(str(corpus)), made, tmp_path / "run")

    for name in ("layers-2", "layers-1"):
        lines = [line for line in journal(tmp_path / "run" / name) if "ndcg_at_5" in line]
        assert [line["step"] for line in lines] == [0, 60, 120]
        assert lines[0]["p_at_1"] < 60
        assert lines[-1]["p_at_1"] > 80
        assert [line.get("by_neighbours_p_at_1", 0) > 80 for line in lines] == [False, False, True], "at the end"
        (losses,) = [line for line in journal(tmp_path / "run" / name) if line["step"] == 120 and "softmax" in line]
        assert {"contrastive", "distilled", "apart", "cpu_seconds_per_1000_contents"} < losses.keys()
    assert not (tmp_path / "run" / "teacher").exists()

    release = export(tmp_path / "1", "float32", "toy-1", tmp_path / "run" / "layers-1")
    vectors = TagVectors.parse(tmp_path, (tmp_path / "1" / FILE).read_bytes())
    assert (vectors.release, release.dimension) == ("toy-1", 32)
    assert vectors.ids == tuple(tag.id for tag in open_corpus(str(corpus)).tags())


def test_a_cpu_learns_in_bfloat16_and_its_tag_vectors_are_evaluated_in_float32(base: Path, corpus: Path) -> None:
    made = plan(corpus, base, dimensions=(16,))
    texts = run.read(open_corpus(str(corpus)), made)
    cpu = torch.device("cpu")
    student = run.begun(made, texts, cpu)[0]
    batch = texts.contents.batch(np.arange(4), cpu)

    kinds = [one.logits(one.vectors(batch.ids, batch.mask)).dtype for one in (student.model, student.mean)]

    assert kinds == [torch.bfloat16, torch.float32]
    parts, _ = losses(student.model, batch, [], None, made)
    exact, _ = losses(student.mean, batch, [], None, made.model_copy(update={"vector_dropout": 0.0}))
    assert parts.keys() == exact.keys() == {"softmax", "contrastive", "softmax_16"}
    assert {loss.dtype for loss in parts.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dimensions": (16, 32)}, "--dimensions: 32 is wrong, expected less than 32, which the encoder has"),
        ({"tokens": 65}, "--tokens: 65 is wrong, expected at most 64, which the encoder has places for"),
    ],
)
def test_what_the_encoder_does_not_have_is_refused(
    base: Path, corpus: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=f"^{words}$"):
        train(open_corpus(str(corpus)), plan(corpus, base, **changes), tmp_path)
    # Nothing has begun: with the option mended it may begin here.
    assert not (tmp_path / "plan.json").exists()


def test_a_training_that_diverges_is_told(base: Path, corpus: Path, tmp_path: Path) -> None:
    """Given a learning rate that is far too high, then it ends with an error at its next evaluation."""
    made = plan(corpus, base, rate=1e30, steps=4)
    with pytest.raises(UserError, match=r"step [24]: the loss .* is nan, so the training has diverged"):
        train(open_corpus(str(corpus)), made, tmp_path)


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout, queue, average and best evaluation included."""
    monkeypatch.setattr(run, "SAVE_STEPS", 5)
    whole, cut, made = tmp_path / "whole", tmp_path / "cut", plan(corpus, base, layers=(1,), steps=12)
    train(open_corpus(str(corpus)), made, whole)

    step, steps = run.step, []

    def killed(*arguments: object) -> dict[str, dict[str, torch.Tensor]]:
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(1)
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(open_corpus(str(corpus)), made, cut)
    monkeypatch.setattr(run, "step", step)
    train(open_corpus(str(corpus)), made, cut)

    for name in ("layers-1/model.safetensors", f"layers-1/{FILE}", "plan.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    with pytest.raises(UserError, match="is of another run: use another --out"):
        train(open_corpus(str(corpus)), plan(corpus, base, layers=(1,), steps=13), cut)


def test_the_best_state_is_kept_not_the_last(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([{"ndcg_at_5": 1.0}, {"ndcg_at_5": 3.0}, {"ndcg_at_5": 2.0}])
    saved: list[float] = []
    monkeypatch.setattr(run, "by_tags", lambda *_: next(figures))
    monkeypatch.setattr(run, "save", lambda *_: saved.append(1))
    train(open_corpus(str(corpus)), plan(corpus, base, layers=(1,), steps=4), tmp_path)
    assert len(saved) == 2


def test_a_run_without_contents_is_one_clear_error(base: Path, corpus: Path, tmp_path: Path) -> None:
    empty = toy_corpus(tmp_path / "empty")
    (empty / "train.jsonl").write_text("")
    with pytest.raises(UserError, match="has no contents to train on"):
        train(open_corpus(str(empty)), plan(empty, base, steps=1), tmp_path / "run")


def test_the_command_tries_a_machine_out_in_a_few_steps(base: Path, corpus: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    options = ["--base", str(base), "--layers", "2,1", "--steps", "3", "--batch", "8", "--most", "40"]
    done = CliRunner().invoke(app, [str(corpus), "--out", str(tmp_path), *options, "--dimensions", "16"])
    assert done.exit_code == 0, done.output
    assert {path.parent.name for path in tmp_path.glob("*/model.safetensors")} == {"layers-2", "layers-1"}


def test_numbers_of_layers_are_different_and_positive() -> None:
    assert numbers("--layers", "6,3,2") == (6, 3, 2)
    for wrong in ("", "6,6", "six", "0", "6,"):
        with pytest.raises(UserError, match=r"--layers: .* is wrong, expected different numbers with commas"):
            numbers("--layers", wrong)


def test_votes_are_those_counted_one_by_one() -> None:
    torch.manual_seed(0)
    known, asked = (torch.nn.functional.normalize(torch.randn(count, 4), dim=1) for count in (30, 5))
    truth = Truth.of([[number % 7, 7 + number % 3] for number in range(30)])

    found = votes(asked, known, truth, 12)

    weights = ((asked @ known.T) / 0.08).softmax(1).numpy()
    for row, shares in enumerate(weights):
        counted = np.zeros(12)
        for content, share in enumerate(shares):
            counted[truth[content]] += share
        best = np.sort(counted)[::-1][:5]
        np.testing.assert_allclose(counted[found.indices[row, :5]], best, atol=1e-5)


def test_votes_that_all_go_to_one_tag_are_no_more_than_one() -> None:
    """Given contents that all carry a tag, then its votes, which sum to 1 but for rounding, are a confidence."""
    torch.manual_seed(0)
    asked, known = (torch.nn.functional.normalize(torch.randn(count, 8), dim=1) for count in (200, 300))
    ranked = votes(asked, known, Truth.of([0] for _ in known), 2)
    assert ranked.scores[:, 0] == pytest.approx(1)
    assert ranked.scores.max() <= 1
