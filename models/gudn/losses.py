"""The three losses of GUDN (arXiv 2201.11582) as functions of tensors.

For n contents and t tags let f be the features of the texts and g those of their labels, both [n, d], z and w the
logits of the classifiers over them, [n, t], and y, 0 or 1, [n, t], say which tags are right:

    (1) feature loss   F = 1/(n d) sum_ij (f_ij - g_ij)^2
    (2) link loss      L = 1/n sum_i R_j b(q(w)_ij, y_ij)      from the features of labels to the labels themselves
    (3) class loss     C = 1/n sum_i R_j b(q(z)_ij, y_ij)      from the features of the text to the labels
    (4) total          T = C + alpha F + beta L                alpha = beta = 1: all count alike, as in the public code

b(p, y) = -y log p - (1 - y) log(1 - p). In the paper's variant q is the softmax over the tags and R their sum; in that
of the public code q is the sigmoid and R their mean. With negative sampling the t tags are those that the step scores.

The numbers are ours: the losses are written from summaries of the paper and from its public code, not from its text.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tagbus.models.gudn.plan import Output, Reduction

# The largest probability that 1 - p still resolves in float32.
MOST: Final = 1 - 1e-6


def feature_loss(texts: Tensor, labels: Tensor) -> Tensor:
    """F: the mean squared error between features [n, d] of texts and of their labels, over contents and width."""
    return functional.mse_loss(texts, labels)


def tag_loss(logits: Tensor, right: Tensor, output: Output, reduction: Reduction) -> Tensor:
    """L and C: binary cross-entropy of logits [n, t] to `right` [n, t], 0 or 1; the mean over contents.

    `reduction` is over the tags.
    """
    entropies = _softmax_entropies(logits, right) if output == "softmax" else _sigmoid_entropies(logits, right)
    return (entropies.sum(1) if reduction == "sum" else entropies.mean(1)).mean()


def _sigmoid_entropies(logits: Tensor, right: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, right, reduction="none")


def _softmax_entropies(logits: Tensor, right: Tensor) -> Tensor:
    chances = logits.log_softmax(1)
    return -(right * chances + (1 - right) * torch.log1p(-chances.exp().clamp(max=MOST)))
