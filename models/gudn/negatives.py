"""Dynamic negative sampling: with many tags a step scores the right ones and the wrong ones that are likeliest now."""

import torch
from torch import Tensor


@torch.no_grad()
def chosen(logits: Tensor, rows: Tensor, tags: Tensor, negatives: int) -> Tensor:
    """The tags that a step scores, int64 ascending: the right ones of its contents (`rows`, `tags`), and the wrong ones
    of each with the `negatives` largest logits [n, t] of the model as it is."""
    wrong = logits.clone()
    wrong[rows, tags] = -torch.inf
    likeliest = wrong.topk(min(negatives, wrong.shape[1]), dim=1).indices
    found: Tensor = torch.unique(torch.cat([tags, likeliest.flatten()]))
    return found


def matrix(rows: Tensor, tags: Tensor, contents: int, columns: Tensor) -> Tensor:
    """Which of the tags `columns`, ascending, are right for each content: float32 [contents, columns], 0 or 1.

    `columns` holds all of `tags`.
    """
    found = torch.zeros(contents, len(columns), device=tags.device)
    found[rows, torch.searchsorted(columns, tags)] = 1
    return found
