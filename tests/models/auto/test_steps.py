"""Which trainings are run for a choice, and with what."""

from pathlib import Path

import pytest

from tagbus.models.auto.choice import Choice, choose
from tagbus.models.auto.corpus import is_held, take
from tagbus.models.auto.steps import steps
from tagbus.models.data.corpus import open_corpus
from tagbus.models.train.plan import PLAN
from tagbus.models.train.whole.plan import Plan
from tagbus.stream.encoder.release import load_release
from tagbus.stream.recall.tagvectors import TagVectors
from tests.models.auto.test_choice import facts


def large(*, gpu: bool) -> Choice:
    return choose(facts(300_000, validation=5_000, tags=20_000), 600, gpu=gpu)


def made(choice: Choice, work: Path) -> list[str]:
    return [step.made.relative_to(work).parts[0] for step in steps(choice, "a-1", work)]


def test_a_large_corpus_trains_a_part_after_the_other_and_the_ranker_last(tmp_path: Path) -> None:
    names = ["encoder", "heads", "labeltree", "top-layers", "second_encoder", "ranker"]
    assert made(large(gpu=False), tmp_path) == names
    last = list(steps(large(gpu=False), "a-1", tmp_path))[-1]
    for part in ("HEADS", "LABELTREE", "SECOND_ENCODER"):
        assert last.settings[f"TAGBUS_COMPONENTS__{part}__FOLDER"] == str(tmp_path / part.lower())


def test_on_a_gpu_the_encoder_is_trained_whole_and_brings_tag_vectors(tmp_path: Path) -> None:
    assert made(large(gpu=True), tmp_path) == ["tagvectors", "labeltree", "ranker"]
    first, *_, last = steps(large(gpu=True), "a-1", tmp_path)
    assert first.made == tmp_path / "tagvectors" / "tags.npz"
    assert last.settings["TAGBUS_COMPONENTS__TAGVECTORS__FOLDER"] == str(tmp_path / "tagvectors")


def test_an_encoder_trained_whole_is_a_release_and_its_tag_vectors_belong_to_it(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagbus.models.auto.steps.LAYERS", 1)
    monkeypatch.setattr("tagbus.models.auto.steps.WHOLE_CPU_EPOCHS", 1)
    taken = take(open_corpus(str(small)), tmp_path, ranker_learns=True)
    some = facts(300_000, validation=5_000, tags=20_000).model_copy(update={"bfloat16": True})
    step = next(iter(steps(choose(some, 600), "a-1", tmp_path)))

    step.run()

    plan = Plan.model_validate_json((tmp_path / "whole" / PLAN).read_bytes())
    assert (plan.layers, plan.epochs, plan.evaluations) == ((1,), 1, 1)
    assert load_release(tmp_path / "encoder" / "a-1").name == "a-1"
    vectors = TagVectors.parse(step.made, step.made.read_bytes())
    assert vectors.release == "a-1"
    assert set(vectors.ids) == {tag.id for tag in taken.corpus.tags()}


def test_a_ranker_never_learns_from_what_is_chosen_by(small: Path, tmp_path: Path) -> None:
    taken = take(open_corpus(str(small)), tmp_path, ranker_learns=True)
    held, learnt = taken.held(), list(taken.corpus.exemplars("val"))
    assert 5 < len(held) < 25
    assert all(is_held(item) for item in held)
    assert not {item.id for item in held} & {item.id for item in learnt}
    assert all(item.accepted for item in learnt)
