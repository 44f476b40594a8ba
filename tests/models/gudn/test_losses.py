"""The losses beside their formulas, in numpy, and their gradients beside finite differences."""

import numpy as np
import pytest
import torch

from tagbus.models.gudn.losses import feature_loss, tag_loss
from tagbus.models.gudn.plan import Output, Reduction

RIGHT = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 0], [1, 1, 1, 0, 1]], np.float64)
LOGITS = np.array([[2.0, -1.0, 0.5, 0.0, 3.0], [-2.0, 0.1, 0.2, 4.0, -3.0], [0.0, 1.0, -1.0, 2.0, 0.3]])


def formula(logits: np.ndarray, output: Output, reduction: Reduction) -> float:
    """(2) and (3) of losses.py, tag by tag."""
    total = 0.0
    for row, right in zip(logits, RIGHT, strict=True):
        chances = np.exp(row) / np.exp(row).sum() if output == "softmax" else 1 / (1 + np.exp(-row))
        parts = [-np.log(chance if one else 1 - chance) for chance, one in zip(chances, right, strict=True)]
        total += sum(parts) / (len(parts) if reduction == "mean" else 1)
    return float(total / len(logits))


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_tag_loss_is_the_cross_entropy_of_each_tag(output: Output, reduction: Reduction) -> None:
    found = tag_loss(torch.from_numpy(LOGITS), torch.from_numpy(RIGHT), output, reduction)
    assert found.item() == pytest.approx(formula(LOGITS, output, reduction), rel=1e-9)


def test_the_feature_loss_is_the_mean_square_over_contents_and_width() -> None:
    texts, labels = np.random.default_rng(0).normal(size=(2, 4, 3))
    expected = sum((texts[i, j] - labels[i, j]) ** 2 for i in range(4) for j in range(3)) / 12
    found = feature_loss(torch.from_numpy(texts), torch.from_numpy(labels))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_gradients_are_those_of_finite_differences(output: Output) -> None:
    right, tags = torch.from_numpy(RIGHT), torch.from_numpy(LOGITS).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: tag_loss(logits, right, output, "sum"), tags)
    texts, labels = (torch.randn(3, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(feature_loss, (texts, labels))


def test_a_certain_answer_has_a_finite_loss() -> None:
    """In float32 a probability of 1 leaves 0 for the other side."""
    logits = torch.tensor([[90.0, 0.0, 0.0]], requires_grad=True)
    for right in ([[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]):
        for output in ("softmax", "sigmoid"):
            loss = tag_loss(logits, torch.tensor(right), output, "sum")
            (gradient,) = torch.autograd.grad(loss, logits)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
