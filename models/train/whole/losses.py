"""The loss of a model on a batch: a weighted sum of the losses in `train/losses.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor
from torch.nn import functional

from tagbus.models.train.losses import SCALE, apart, decoupled_contrastive, decoupled_softmax, distillation
from tagbus.models.train.whole.model import Trained
from tagbus.models.train.whole.plan import Plan
from tagbus.models.train.whole.rows import Batch, shared

# Number of a teacher's best tags; its softmax is over these only.
TAUGHT: Final = 512


@dataclass(frozen=True, slots=True)
class Seen:
    """The vectors of an earlier batch of n texts, and its right pairs: keys of the contrastive loss."""

    vectors: Tensor
    rows: Tensor
    tags: Tensor


@dataclass(frozen=True, slots=True)
class TeacherOutput:
    """A teacher's answer on a batch: its vectors, its best tags, and their probabilities among these."""

    vectors: Tensor
    best: Tensor
    chances: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, teacher: Trained, batch: Batch) -> Self:
        """Run the teacher."""
        vectors = teacher.vectors(batch.ids, batch.mask)
        scores, best = teacher.logits(vectors).topk(min(TAUGHT, len(teacher.tags)), dim=1)
        return cls(vectors, best, scores.softmax(1))


def losses(
    model: Trained, batch: Batch, queue: Sequence[Seen], teacher: TeacherOutput | None, plan: Plan
) -> tuple[dict[str, Tensor], Seen]:
    """Return the weighted losses of a model on a batch, by name, and the batch as a key for later batches."""
    vectors = model.vectors(batch.ids, batch.mask)
    logits = model.logits(functional.dropout(vectors, plan.vector_dropout))
    found = {"softmax": decoupled_softmax(logits, batch.rows, batch.tags)}
    seen = Seen(vectors.detach(), batch.rows, batch.tags)
    if plan.contrastive:
        found["contrastive"] = plan.contrastive * between(vectors, seen, queue)
    if teacher is not None:
        found["distilled"] = plan.distilled * distillation(logits.to(vectors.dtype), teacher.best, teacher.chances)
        found["apart"] = plan.apart * apart(vectors, teacher.vectors)
    for length in plan.dimensions:
        found[f"softmax_{length}"] = shorter(model, vectors, batch, length)
    return found, seen


def between(vectors: Tensor, own: Seen, queue: Sequence[Seen]) -> Tensor:
    """RAE-XMC's loss with contents as keys: the batch's, and earlier batches', whose vectors are constant."""
    keys = torch.cat([vectors, *(one.vectors for one in queue)])
    right = shared([(one.rows, one.tags, len(one.vectors)) for one in (own, *queue)])
    absent = torch.eye(len(vectors), len(keys), dtype=torch.bool, device=vectors.device)
    return decoupled_contrastive(SCALE * vectors @ keys.T, right, absent)


def shorter(model: Trained, vectors: Tensor, batch: Batch, length: int) -> Tensor:
    """The softmax loss by the first `length` dimensions (Matryoshka, Kusupati et al., NeurIPS 2022, arXiv 2205.13147),
    so that vectors may be cut there."""
    cut = functional.normalize(vectors[:, :length], dim=1)
    return decoupled_softmax(model.logits(cut), batch.rows, batch.tags)
