"""LLM4Tag's equations 8, 10 and 11, computed example by example, and their gradients by finite differences."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from tagbus.models.train.sft.losses import answer_loss, confidence, confidence_loss

WORDS = (3, 7)
RIGHT = torch.tensor([True, False, True, True, False])


def logits(seed: int) -> torch.Tensor:
    return torch.randn((5, 11), dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def answers() -> torch.Tensor:
    return torch.where(RIGHT, *WORDS)


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_loss_is_minus_the_log_probability_of_the_answer(seed: int) -> None:
    given = logits(seed)
    expected = 0.0
    for row, right in zip(given.tolist(), RIGHT.tolist(), strict=True):
        share = math.exp(row[WORDS[0] if right else WORDS[1]]) / sum(map(math.exp, row))
        expected -= math.log(share) / len(RIGHT)
    assert answer_loss(given, answers()).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_confidence_is_the_share_of_yes_among_both(seed: int) -> None:
    given = logits(seed)
    expected = [math.exp(row[3]) / (math.exp(row[3]) + math.exp(row[7])) for row in given.tolist()]
    assert confidence(given, WORDS).tolist() == pytest.approx(expected, rel=1e-12)
    losses = [-math.log(conf if right else 1 - conf) for conf, right in zip(expected, RIGHT.tolist(), strict=True)]
    assert confidence_loss(given, RIGHT, WORDS).item() == pytest.approx(sum(losses) / 5, rel=1e-12)


def test_their_gradients_are_those_of_finite_differences() -> None:
    assert gradcheck(lambda given: answer_loss(given, answers()), (logits(0),))
    assert gradcheck(lambda given: confidence_loss(given, RIGHT, WORDS), (logits(1),))


def test_the_confidence_loss_moves_the_two_words_alone() -> None:
    given = logits(2)
    confidence_loss(given, RIGHT, WORDS).backward()
    assert given.grad is not None
    moved = given.grad.abs().sum(0) > 0
    assert moved.nonzero().flatten().tolist() == list(WORDS)


def test_large_logits_are_finite() -> None:
    given = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    right = torch.tensor([True, True])
    assert confidence_loss(given, right, (0, 1)).item() == pytest.approx(1e4)
    assert answer_loss(given, torch.tensor([0, 0])).item() == pytest.approx(1e4)
