"""The loss of a batch: what each term sees of the batch, of earlier ones, and of the teacher."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tagbus.models.data.texts import tokenizer
from tagbus.models.train.losses import SCALE, decoupled_contrastive, decoupled_softmax
from tagbus.models.train.whole.losses import Seen, TeacherOutput, between, losses, shorter
from tagbus.models.train.whole.model import Trained
from tagbus.models.train.whole.plan import Plan
from tagbus.models.train.whole.rows import Batch, Rows

PLAN = Plan(corpus="", base="", word_dropout=0, vector_dropout=0, dimensions=(16, 8))
ROWS = [("tea coffee", [0, 1]), ("dog", [1]), ("a choir", [2])]


@pytest.fixture
def model(base: Path) -> Trained:
    torch.manual_seed(1)
    made = Trained(base, [0, 1], 32, 4)
    with torch.no_grad():
        made.tags.copy_(torch.randn(4, 32))
    return made


@pytest.fixture
def batch(base: Path) -> Batch:
    rows = Rows.read(ROWS, tokenizer(base, 16), lambda _: None)
    return rows.batch(np.arange(len(ROWS)), torch.device("cpu"))


def test_every_term_of_a_plan_is_there_and_none_beside(model: Trained, batch: Batch) -> None:
    parts, _ = losses(model, batch, [], TeacherOutput.of(model, batch), PLAN)
    assert parts.keys() == {"softmax", "contrastive", "distilled", "apart", "softmax_16", "softmax_8"}
    # The teacher is the student itself.
    assert parts["distilled"].item() == pytest.approx(0, abs=1e-6)
    assert parts["apart"].item() == pytest.approx(0, abs=1e-6)

    parts, _ = losses(model, batch, [], None, PLAN.model_copy(update={"contrastive": 0.0, "dimensions": ()}))
    assert parts.keys() == {"softmax"}


def test_the_weights_of_a_plan_count(model: Trained, batch: Batch) -> None:
    once, _ = losses(model, batch, [], None, PLAN.model_copy(update={"contrastive": 1.0}))
    twice, _ = losses(model, batch, [], None, PLAN.model_copy(update={"contrastive": 2.0}))
    assert twice["contrastive"].item() == pytest.approx(2 * once["contrastive"].item(), rel=1e-6)


def test_contents_of_earlier_batches_are_keys_and_a_content_is_none_of_its_own() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    own = Seen(vectors, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    earlier = Seen(vectors.flip(0), torch.tensor([0, 1]), torch.tensor([1, 5]))

    scores = SCALE * vectors @ torch.cat([vectors, vectors.flip(0)]).T
    right = torch.tensor([[1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]).bool()
    expected = decoupled_contrastive(scores, right, torch.eye(3, 6).bool())
    torch.testing.assert_close(between(vectors, own, [earlier]), expected)


def test_a_shorter_vector_is_of_unit_length_again(model: Trained, batch: Batch) -> None:
    vectors = model.vectors(batch.ids, batch.mask)
    cut = torch.nn.functional.normalize(vectors[:, :8], dim=1)
    expected = decoupled_softmax(SCALE * cut @ model.tags[:, :8].T, batch.rows, batch.tags)
    torch.testing.assert_close(shorter(model, vectors, batch, 8), expected)


def test_the_whole_loss_has_the_gradient_of_finite_differences(model: Trained, batch: Batch) -> None:
    """Along the gradient and along a random direction, over all weights at once."""
    taught = TeacherOutput(
        torch.nn.functional.normalize(torch.randn(3, 32), dim=1),
        torch.tensor([[0, 1], [1, 2], [2, 3]]),
        torch.tensor([[0.7, 0.3], [0.5, 0.5], [0.9, 0.1]]),
    )

    def value() -> torch.Tensor:
        parts, _ = losses(model, batch, [], taught, PLAN)
        return torch.stack(list(parts.values())).sum()

    weights = list(model.parameters())
    gradient = torch.autograd.grad(value(), weights)
    for direction in (gradient, [torch.randn_like(weight) for weight in weights]):
        length = torch.sqrt(sum((one**2).sum() for one in direction))
        unit = [one / length for one in direction]
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for weight, one in zip(weights, unit, strict=True):
                    weight += sign * 1e-2 * one
                ends.append(value().item())
                for weight, one in zip(weights, unit, strict=True):
                    weight -= sign * 1e-2 * one
        slope = float(sum((one * other).sum() for one, other in zip(gradient, unit, strict=True)))
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(slope, rel=2e-2, abs=2e-3)
