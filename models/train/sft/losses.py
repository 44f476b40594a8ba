"""LLM4Tag's two losses of the judge (arXiv 2502.13481): supervised fine-tuning (eq. 8) and confidence (eq. 11).

Logits are float32: in bfloat16, with 8 bits of mantissa, Yes and No often get the same value.
"""

import torch
from torch import Tensor
from torch.nn import functional


def answer_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Eq. 8: minus the log probability of the right answer given the prompt, over the whole vocabulary, mean over
    examples. `logits` float32 [n, v], at the answer's position; `answers` int64 [n], its token."""
    return functional.cross_entropy(logits, answers)


def confidence(logits: Tensor, words: tuple[int, int]) -> Tensor:
    """Eq. 10: exp(s_yes) / (exp(s_yes) + exp(s_no)), float32 [n]. `words`: the tokens of yes and of no."""
    return torch.sigmoid(logits[:, words[0]] - logits[:, words[1]])


def confidence_loss(logits: Tensor, right: Tensor, words: tuple[int, int]) -> Tensor:
    """Eq. 11: binary cross-entropy of the confidence, mean over examples. `right` bool [n]."""
    return functional.binary_cross_entropy_with_logits(
        logits[:, words[0]] - logits[:, words[1]], right.to(logits.dtype)
    )
