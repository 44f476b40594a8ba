"""Training losses, each with its paper.

Scores are similarities divided by the temperature: cosine times 20, which is 1 / 0.05, in all of them.
"""

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tagbus.stream.errors import UserError

# DEXML and MultipleNegativesRanking's default both divide the cosine by 0.05.
SCALE: Final = 20.0


def decoupled_softmax(logits: Tensor, rows: Tensor, tags: Tensor) -> Tensor:
    """Decoupled softmax over all tags (DEXML, Gupta et al., ICLR 2024, arXiv 2310.10636), mean over contents.

    For each right tag p of a content: -log(e^s_p / (e^s_p + sum of e^s_n over the wrong tags n)); right tags do not
    compete. `logits` [n, t]; `rows` and `tags` int64 [m] are the right pairs, without repetition. Each content has
    weight 1 regardless of its number of tags; one without tags contributes 0.
    """
    right = logits[rows, tags].float()
    wrong = logits.index_put((rows, tags), torch.full((), -torch.inf, dtype=logits.dtype, device=logits.device))
    rest = torch.logsumexp(wrong.float(), dim=1)[rows]
    share = 1 / torch.bincount(rows, minlength=len(logits))[rows]
    return (functional.softplus(rest - right) * share).sum() / len(logits)


def masked_ranking(scores: Tensor, own: Tensor, right: Tensor) -> Tensor:
    """MultipleNegativesRanking (Henderson et al. 2017, arXiv 1705.00652, section 4.4) with false negatives masked.

    Row i is a content with one of its tags, column own[i]: -log(e^s_own / (e^s_own + sum of e^s_n over the columns
    that are no tag of the content)), mean over rows. Other right tags in the batch are not negatives (Zhihu).
    `scores` [n, m], `own` int64 [n], `right` bool [n, m]. If only own[i] is right in each row i, this is the paper's
    loss.
    """
    false = right.scatter(1, own[:, None], value=0)
    return functional.cross_entropy(scores.masked_fill(false, -torch.inf), own)


def decoupled_contrastive(scores: Tensor, right: Tensor, absent: Tensor) -> Tensor:
    """RAE-XMC's decoupled contrastive loss over the joint memory of contents and tags (arXiv 2502.10615).

    The keys are the batch's contents and tags. For each right key p of a content (its tags, and the contents that share
    a tag with it): -log(e^s_p / (e^s_p + sum of e^s_n over the wrong keys n)), mean over its right keys, then over
    contents. `scores` [n, k]; `right` bool [n, k]; `absent` bool [n, k]: keys that a content must not see, such as
    itself. A content without a right key contributes 0.
    """
    seen = right & ~absent
    rest = torch.logsumexp(scores.masked_fill(right | absent, -torch.inf), dim=1, keepdim=True)
    losses = torch.where(seen, functional.softplus(rest - scores), 0.0)
    return (losses.sum(1) / seen.sum(1).clamp(min=1)).mean()


def distillation(logits: Tensor, best: Tensor, chances: Tensor) -> Tensor:
    """Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) over the teacher's best tags, mean over contents.

    The Kullback-Leibler divergence of the student's softmax from the teacher's, both over the tags `best` int64 [n, k],
    which are different in a row. `logits` [n, t] are the student's; `chances` float32 [n, k] are the teacher's and sum
    to 1 in each row.
    """
    own = logits.gather(1, best).log_softmax(1)
    return functional.kl_div(own, chances, reduction="batchmean")


def apart(vectors: Tensor, others: Tensor) -> Tensor:
    """1 - cosine of unit vectors [n, d] in the same order, mean over contents: 0 where they are the same."""
    return 1 - (vectors * others).sum(1).mean()


def require_finite(losses: Mapping[str, float | Tensor], step: int) -> None:
    """Raises UserError where a training has diverged: what it would write is worth nothing, and looks like a model."""
    for name, loss in losses.items():
        if not math.isfinite(value := float(loss)):
            raise UserError(
                f"step {step}: the loss {name} is {value}, so the training has diverged: take a lower learning rate "
                "and another --out"
            )
