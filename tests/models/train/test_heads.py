"""Training of heads: a toy set to its optimum, resuming, and ONNX outputs equal to torch's."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tagbus.models.export.heads_graph import Precision, quantised, to_onnx, weights_of
from tagbus.models.journal import JOURNAL
from tagbus.models.train.heads import CHECKPOINT, Heads, Recipe, Trainer, command, tensors, train
from tagbus.models.train.heads_export import ExportOptions, export, useful
from tagbus.models.train.losses import SCALE
from tagbus.models.train.training_set import Examples, TrainingSet, initial
from tagbus.stream.errors import UserError
from tagbus.stream.onnx_runtime import onnxruntime
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.classifier.model import cut
from tagbus.stream.recall.heads.model import HeadsRecall
from tagbus.stream.recall.tagvectors import FILE, TagVectors
from tagbus.stream.recall.words import Vocabulary
from tests.models.toy import toy_corpus

D = 16
WORDS = tuple(f"word{number}" for number in range(40))
TAGS = tuple(f"t{number}" for number in range(8))
RECIPE = Recipe(epochs=8, batch=32, rate=0.05, feature_dropout=0.1, dropout=0.1)
TEXTS = [
    "",
    "word1",
    "word1 word2 " * 20,
    "Лесные пожары",
    "森林火災",
    "पुस्तक",
    " ".join(WORDS),
    "\ud800",
]


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def training_set(contents: int = 640, seed: int = 0) -> TrainingSet:
    """Tag i is right for contents with word i or word i + 8; the vectors carry no information."""
    draw = np.random.default_rng(seed)
    chosen = draw.integers(0, len(WORDS), (contents + 64, 3))
    texts = [" ".join(WORDS[number] for number in row) for row in chosen]
    vocabulary = Vocabulary.learn(texts, 2, 1_000_000)
    right = [sorted({number % 8 for number in row if number < 16} or {7}) for row in chosen.tolist()]
    vectors = unit(draw.normal(size=(len(texts), D)))

    def part(rows: slice) -> Examples:
        lengths = np.array([len(one) for one in right[rows]])
        tags = np.concatenate([np.array(one) for one in right[rows]])
        return Examples(vocabulary.bags(texts[rows]), vectors[rows], tags, np.cumsum(lengths) - lengths)

    first = part(slice(contents))
    starts, names = (unit(draw.normal(size=(count, D))) for count in (len(vocabulary.frequencies), 8))
    counts = np.bincount(first.tags, minlength=8)
    return TrainingSet("r1", TAGS, vocabulary, first, part(slice(contents, None)), starts, names, counts, f"toy-{seed}")


def trained(recipe: Recipe = RECIPE) -> Trainer:
    trainer = Trainer(training_set(), recipe)
    while trainer.step < trainer.steps:
        trainer.advance()
    return trainer


@pytest.fixture(scope="module")
def toy() -> Trainer:
    torch.set_num_threads(1)
    return trained()


def states(trainer: Trainer) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy() for name, value in trainer.heads.state_dict().items()}


def test_a_toy_set_is_learnt_to_its_optimum(toy: Trainer) -> None:
    before = Trainer(training_set(), RECIPE).quality(toy.training_set.val)
    after = toy.quality(toy.training_set.val)

    assert before.p_at_1 < 50
    assert after.p_at_1 > 95, "each word says its tag, so nearly every first tag can be right"


def test_at_first_a_content_is_scored_by_its_words_and_vector_against_the_names() -> None:
    data = training_set()
    heads = Heads(data.terms, data.names).eval()
    some = data.train.some(np.arange(5))

    with torch.no_grad():
        logits = heads(*tensors(some.bags, some.vectors, torch.device("cpu"))).numpy()

    for row, found in enumerate(logits):
        bag = some.bags.rows(np.array([row]))
        content = bag.weights @ data.terms[bag.terms] + some.vectors[row]
        assert found == pytest.approx(SCALE * data.names @ (content / np.linalg.norm(content)), abs=1e-4)


def test_tags_start_at_the_vectors_that_the_encoder_was_trained_with(tmp_path: Path) -> None:
    """A tag without one, and every tag of another release, at that of its name."""
    found, vectors = training_set(), np.arange(2 * D, dtype=np.float32).reshape(2, D)
    assert initial(tmp_path, found) is found.names
    known = TagVectors(("t5", "t1"), vectors, np.zeros(2, np.float32), SCALE, "r1")
    for release, places in (("r1", {5: 0, 1: 1}), ("another", dict[int, int]())):
        (tmp_path / FILE).write_bytes(replace(known, release=release).dump())

        starts = initial(tmp_path, found)

        for number in range(8):
            place = places.get(number)
            assert (starts[number] == (found.names[number] if place is None else vectors[place])).all()


def test_the_same_seed_gives_the_same_heads_and_another_others() -> None:
    recipe = replace(RECIPE, epochs=1)

    one, same, other = (states(trained(made)) for made in (recipe, recipe, replace(recipe, seed=1)))

    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["free"], other["free"])


def test_a_run_that_was_cut_off_ends_where_it_would_have(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2, every=7)
    whole = Trainer(training_set(), recipe)
    (tmp_path / "whole").mkdir()
    train(whole, tmp_path / "whole")

    cut_off = Trainer(training_set(), recipe)
    for _ in range(13):
        cut_off.advance()
    cut_off.save(tmp_path / CHECKPOINT)
    resumed = Trainer(training_set(), recipe)
    train(resumed, tmp_path)

    assert resumed.step == whole.step == whole.steps
    assert all(np.array_equal(states(whole)[name], value) for name, value in states(resumed).items())


@pytest.mark.parametrize(
    ("data", "recipe", "said"), [(0, replace(RECIPE, dropout=0.5), "dropout is 0.1"), (1, RECIPE, "data is 'toy-0'")]
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, data: int, recipe: Recipe, said: str) -> None:
    Trainer(training_set(), RECIPE).save(tmp_path / CHECKPOINT)

    with pytest.raises(UserError, match=said):
        Trainer(training_set(seed=data), recipe).resume(tmp_path / CHECKPOINT)


def test_a_run_leaves_its_metrics(tmp_path: Path) -> None:
    trainer = Trainer(training_set(), replace(RECIPE, epochs=3))

    train(trainer, tmp_path)

    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2, 3]
    assert {"p_at_1", "ece"} <= lines[-1]["val"].keys()
    assert all(line["peak_mb"] > 0 and line["cpu_seconds_per_1000_contents"] > 0 for line in lines)


def answers(model: bytes, data: Examples) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    numbers: list[Any] = [None] * len(data)
    chances: list[Any] = [None] * len(data)
    for rows, length in cut(data.bags.lengths):
        terms, weights = data.bags.rows(rows).padded(length)
        found = session.run(["tags", "chances"], {"terms": terms, "weights": weights, "vectors": data.vectors[rows]})
        for place, row in enumerate(rows.tolist()):
            numbers[row], chances[row] = found[0][place], found[1][place]
    return np.array(numbers), np.array(chances)


@pytest.mark.parametrize(("precision", "off"), [("float32", 1e-5), ("float16", 2e-3), ("int8", 3e-2)])
def test_onnx_answers_as_torch_does_whatever_the_padding(toy: Trainer, precision: Precision, off: float) -> None:
    bags = toy.training_set.vocabulary.bags(TEXTS)
    vectors = unit(np.random.default_rng(3).normal(size=(len(TEXTS), D)))
    none = np.zeros(len(TEXTS), np.int64)
    with torch.no_grad():
        expected = toy.heads.eval()(*tensors(bags, vectors, torch.device("cpu"))).softmax(1).numpy()

    model = to_onnx(weights_of(states(toy), SCALE), 60, precision).SerializeToString()
    numbers, chances = answers(model, Examples(bags, vectors, none[:0], none))

    assert numbers.shape == (len(TEXTS), len(TAGS)), "there are no more than all tags"
    assert np.abs(np.take_along_axis(expected, numbers, 1) - chances).max() < off
    assert (np.diff(chances, axis=1) <= 0).all()


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_quantised_row_is_off_by_half_a_step_at_most(rows: list[list[float]]) -> None:
    table = np.array(rows, np.float32)

    small, scales = quantised(table)

    assert (np.abs(small * scales[:, None] - table) <= 0.5001 * scales[:, None] + 1e-12).all()


def test_the_terms_of_most_use_are_kept() -> None:
    bags = Vocabulary((9, 9, 9), 9, ("aa", "bb", "cc")).bags(["aa", "aa", "bb", "cc"])
    table = np.array([[1, 0], [3, 0], [0.1, 0]], np.float32)

    assert useful(table, bags, 2).tolist() == [0, 1]
    assert useful(table, bags, 1).tolist() == [1]
    assert useful(table, bags, 0).tolist() == [0, 1, 2]


def test_what_is_exported_is_what_the_tagger_loads(toy: Trainer, tmp_path: Path) -> None:
    manifest = export(
        toy.heads, toy.training_set, toy.contents, tmp_path, ExportOptions(best=3, precision="int8", keep=20)
    )

    recaller = HeadsRecall.load(tmp_path, "r1")
    kept = recaller.manifest
    assert kept == manifest
    assert kept.tags == TAGS
    words = Vocabulary.parse("words.json", (tmp_path / "words.json").read_bytes())
    assert words.terms is not None
    assert len(words.terms) == 20
    word = next(word for word in words.terms if WORDS.index(word) < 16)
    (found,) = asyncio.run(recaller.recall(Query([], [word], unit(np.ones((1, D))))))
    assert next(iter(found)) == TAGS[WORDS.index(word) % 8]
    assert len(found) == 3


def test_a_run_is_exported_again_with_fewer_terms(tmp_path: Path) -> None:
    """Given a finished run, when it is exported to another folder, then nothing is trained."""
    corpus, run = str(toy_corpus(tmp_path / "corpus")), tmp_path / "run"
    recipe: dict[str, Any] = {"words": 1, "bigrams": 1000, "terms": 100, "rows": 0, "named": 0, "epochs": 1}
    recipe |= {"batch": 32, "rate": 1e-3, "feature_dropout": 0.3, "dropout": 0.4, "seed": 0, "threads": 1, "best": 3}
    command(corpus, run, None, None, None, **recipe, precision="int8", keep=0)
    log = (run / JOURNAL).read_bytes()

    command(corpus, tmp_path / "small", run, None, None, **recipe, precision="int8", keep=5)

    assert (run / JOURNAL).read_bytes() == log
    words = Vocabulary.parse("words.json", (tmp_path / "small" / "words.json").read_bytes())
    assert words.terms is not None
    assert len(words.terms) == 5


def test_without_validation_contents_it_trains_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toy_corpus(tmp_path / "corpus")
    (folder / "val.jsonl").write_text("")
    command(str(folder), tmp_path / "heads", epochs=1, batch=64, bigrams=1_000_000)
    assert "no validation contents to measure on" in capsys.readouterr().out
    assert (tmp_path / "heads" / "heads.onnx").exists()


def test_a_training_that_diverges_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the loss softmax is nan, so the training has diverged"):
        train(Trainer(training_set(), replace(RECIPE, rate=1e30)), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()
