"""The losses: each equals its formula computed pair by pair, has the right gradient, and reaches a known optimum."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from tagbus.models.train.losses import apart, decoupled_contrastive, decoupled_softmax, distillation, masked_ranking

CONTENTS, TAGS = 5, 9


def right_pairs(seed: int) -> NDArray[np.bool_]:
    """Right tags of contents, at least one per content."""
    random = np.random.default_rng(seed)
    right = random.random((CONTENTS, TAGS)) < 0.3
    right[np.arange(CONTENTS), random.integers(TAGS, size=CONTENTS)] = True
    return right


def scores_of(seed: int, columns: int = TAGS) -> torch.Tensor:
    random = np.random.default_rng(seed + 100)
    return torch.tensor(3 * random.normal(size=(CONTENTS, columns)), requires_grad=True)


def pairs(right: NDArray[np.bool_]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, tags = np.nonzero(right)
    return torch.from_numpy(rows), torch.from_numpy(tags)


def minus_log_share(own: float, others: list[float]) -> float:
    return -math.log(math.exp(own) / (math.exp(own) + sum(math.exp(other) for other in others)))


@pytest.mark.parametrize("seed", range(5))
def test_decoupled_softmax_is_its_formula(seed: int) -> None:
    right, scores = right_pairs(seed), scores_of(seed)
    expected = 0.0
    for row, marks in zip(scores.tolist(), right, strict=True):
        wrong = [score for score, mark in zip(row, marks, strict=True) if not mark]
        each = [minus_log_share(score, wrong) for score, mark in zip(row, marks, strict=True) if mark]
        expected += sum(each) / len(each) / CONTENTS
    assert decoupled_softmax(scores, *pairs(right)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_masked_ranking_is_its_formula(seed: int) -> None:
    right, scores = right_pairs(seed), scores_of(seed)
    own = right.argmax(1)
    expected = 0.0
    for row, marks, mine in zip(scores.tolist(), right, own, strict=True):
        expected += minus_log_share(row[mine], [row[n] for n in range(TAGS) if not marks[n]]) / CONTENTS
    found = masked_ranking(scores, torch.from_numpy(own), torch.from_numpy(right))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_masked_ranking_without_false_negatives_is_that_of_sentence_transformers() -> None:
    """Given a batch in which no content has another's tag, then it equals their MultipleNegativesRankingLoss."""
    contents, tags = (torch.randn(CONTENTS, 4, dtype=torch.float64) for _ in range(2))
    theirs = MultipleNegativesRankingLoss(model=None, scale=20.0).compute_loss_from_embeddings(
        [contents, tags], torch.zeros(CONTENTS)
    )
    unit = torch.nn.functional.normalize
    scores = 20 * unit(contents, dim=1) @ unit(tags, dim=1).T
    own = torch.arange(CONTENTS)
    ours = masked_ranking(scores, own, torch.eye(CONTENTS, dtype=torch.bool))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_decoupled_contrastive_is_its_formula(seed: int) -> None:
    """Keys are the contents, then the tags; a content does not see itself and shares tags with some others."""
    tags = right_pairs(seed)
    right = np.hstack([(tags.astype(int) @ tags.T.astype(int)) > 0, tags])
    absent = np.hstack([np.eye(CONTENTS, dtype=bool), np.zeros_like(tags)])
    scores = scores_of(seed, CONTENTS + TAGS)
    expected = 0.0
    for number, row in enumerate(scores.tolist()):
        keys = [key for key in range(len(row)) if not absent[number, key]]
        wrong = [row[key] for key in keys if not right[number, key]]
        each = [minus_log_share(row[key], wrong) for key in keys if right[number, key]]
        expected += sum(each) / len(each) / CONTENTS
    found = decoupled_contrastive(scores, torch.from_numpy(right), torch.from_numpy(absent))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def lesson(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A teacher's best four tags of each content, and their probabilities."""
    scores, best = scores_of(seed + 50).detach().topk(4, dim=1)
    return best, scores.softmax(1)


@pytest.mark.parametrize("seed", range(5))
def test_distillation_is_its_formula(seed: int) -> None:
    scores, (best, chances) = scores_of(seed), lesson(seed)
    expected = 0.0
    for row, tags, taught in zip(scores.tolist(), best.tolist(), chances.tolist(), strict=True):
        total = sum(math.exp(row[tag]) for tag in tags)
        expected += sum(
            p * (math.log(p) - math.log(math.exp(row[t]) / total)) for t, p in zip(tags, taught, strict=True)
        )
    assert distillation(scores, best, chances).item() == pytest.approx(expected / CONTENTS, rel=1e-9)


def test_a_student_that_scores_as_its_teacher_has_nothing_to_learn() -> None:
    scores = scores_of(3).detach()
    highest, best = scores.topk(4, dim=1)
    assert distillation(scores, best, highest.softmax(1)).item() == pytest.approx(0, abs=1e-12)
    unit = torch.nn.functional.normalize(scores, dim=1)
    assert apart(unit, unit).item() == pytest.approx(0, abs=1e-12)


def test_apart_is_one_minus_the_mean_cosine() -> None:
    ours, theirs = (torch.nn.functional.normalize(scores_of(seed).detach(), dim=1) for seed in (1, 2))
    cosines = [
        sum(a * b for a, b in zip(*pair, strict=True)) for pair in zip(ours.tolist(), theirs.tolist(), strict=True)
    ]
    assert apart(ours, theirs).item() == pytest.approx(1 - sum(cosines) / CONTENTS, rel=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    right = right_pairs(1)
    own, marks = torch.from_numpy(right.argmax(1)), torch.from_numpy(right)
    absent = torch.zeros_like(marks)
    absent[0, -1] = True
    assert torch.autograd.gradcheck(lambda s: masked_ranking(s, own, marks), scores_of(1))
    assert torch.autograd.gradcheck(lambda s: decoupled_contrastive(s, marks, absent), scores_of(1))
    best, chances = lesson(1)
    assert torch.autograd.gradcheck(lambda s: distillation(s, best, chances), scores_of(1))
    assert torch.autograd.gradcheck(lambda s: apart(s, scores_of(2).detach()), scores_of(1))
    # The loss is in float32, where finite differences need a wide step.
    rows, tags = pairs(right)
    assert torch.autograd.gradcheck(lambda s: decoupled_softmax(s, rows, tags), scores_of(1), eps=1e-2, atol=1e-2)


def test_a_content_whose_keys_are_all_right_or_absent_gives_finite_gradients() -> None:
    scores = scores_of(2)
    right = torch.ones(CONTENTS, TAGS, dtype=torch.bool)
    loss = decoupled_contrastive(scores, right, torch.zeros_like(right)) + masked_ranking(
        scores, torch.zeros(CONTENTS, dtype=torch.int64), right
    )
    loss.backward()
    assert scores.grad is not None
    assert loss.item() == 0
    assert torch.isfinite(scores.grad).all()


# Contents 0 and 1 share tag 0, 2 has tag 1, 3 has tags 2 and 3, 4 has tag 3.
TRUTH = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=bool)


@pytest.mark.parametrize("loss", ["softmax", "ranking", "contrastive"])
def test_a_toy_set_is_learnt_to_the_optimum(loss: str) -> None:
    """Given free vectors, when trained, then the loss goes to 0, its infimum, and right tags outrank all wrong ones."""
    torch.manual_seed(0)
    contents, tags = (torch.randn(n, 8, requires_grad=True) for n in (len(TRUTH), TRUTH.shape[1]))
    truth = torch.from_numpy(TRUTH)
    share = (truth.int() @ truth.int().T) > 0
    alone = torch.eye(len(TRUTH), dtype=torch.bool)

    def value() -> torch.Tensor:
        scores = contents @ tags.T
        if loss == "softmax":
            return decoupled_softmax(scores, *pairs(TRUTH))
        if loss == "ranking":
            rows, own = pairs(TRUTH)
            return masked_ranking(scores[rows], own, truth[rows])
        keys, marks = torch.cat([contents @ contents.T, scores], 1), torch.cat([share, truth], 1)
        return decoupled_contrastive(keys, marks, torch.cat([alone, torch.zeros_like(truth)], 1))

    optimiser = torch.optim.Adam([contents, tags], 0.1)
    for _ in range(300):
        optimiser.zero_grad()
        found = value()
        found.backward()
        optimiser.step()

    scores = (contents @ tags.T).detach().numpy()
    assert found.item() < 1e-3
    assert (np.where(TRUTH, scores, np.inf).min(1) > np.where(TRUTH, -np.inf, scores).max(1)).all()
