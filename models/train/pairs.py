"""Adapters for sentence-transformers' trainer: losses over pairs, precomputed batches, and the log."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from tagbus.models.data.truth import Truth
from tagbus.models.journal import Journal
from tagbus.models.train.losses import SCALE, decoupled_contrastive, masked_ranking, require_finite

Loss = Literal["ranking", "contrastive"]
FalseNegatives = Literal["masked", "kept"]
Ints = NDArray[np.int64]
# What the trainer logs of a loss: that of the last steps, and at the end that of all.
LOSSES = ("loss", "train_loss")


class PairLoss(nn.Module):
    """The losses of losses.py with the trainer's interface: columns content, tag and negatives, and a label per row.

    The label is int64 [2 + negatives]: the numbers of the content, its tag and the hard negatives.
    """

    def __init__(self, model: nn.Module, truth: Truth, tags: int, loss: Loss, false_negatives: FalseNegatives) -> None:
        super().__init__()
        self.model = model
        self._tags = tags
        self._loss = loss
        self._false_negatives = false_negatives
        self._truth = truth
        contents = np.repeat(np.arange(len(truth)), np.diff(truth.starts))
        # Ascending, for binary search: a dense table of contents by tags would take gigabytes.
        self._pairs = torch.from_numpy(contents * tags + truth.tags)

    def right(self, contents: Tensor, tags: Tensor) -> Tensor:
        """Whether tag j is right for content i: bool [n, m] from numbers int64 [n] and [m]."""
        pairs = self._pairs.to(contents.device)
        wanted = contents[:, None] * self._tags + tags
        return pairs[torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)] == wanted

    def shared(self, contents: Tensor) -> Tensor:
        """Whether contents i and j share a tag: bool [n, n]."""
        places, tags = self._truth.pairs(contents.cpu().numpy())
        known, columns = np.unique(tags, return_inverse=True)
        marks = torch.zeros(len(contents), len(known), device=contents.device)
        marks[torch.from_numpy(places), torch.from_numpy(columns)] = 1
        return marks @ marks.T > 0

    def forward(self, sentence_features: Sequence[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The loss of a batch."""
        vectors = [nn.functional.normalize(self.model(one)["sentence_embedding"], dim=1) for one in sentence_features]
        contents, tags = vectors[0], torch.cat(vectors[1:])
        numbers = labels[:, 1:].T.reshape(-1)
        own = torch.arange(len(contents), device=labels.device)
        right = self.right(labels[:, 0], numbers)
        if self._false_negatives == "kept":
            right = torch.zeros_like(right).scatter(1, own[:, None], value=1)
        scores = SCALE * contents @ tags.T
        if self._loss == "ranking":
            return masked_ranking(scores, own, right)
        alone = torch.eye(len(contents), dtype=torch.bool, device=labels.device)
        keys = torch.cat([SCALE * contents @ contents.T, scores], 1)
        absent = torch.cat([alone, torch.zeros_like(right)], 1)
        return decoupled_contrastive(keys, torch.cat([self.shared(labels[:, 0]), right], 1), absent)


class Trainer(SentenceTransformerTrainer):
    """sentence-transformers' trainer over precomputed batches."""

    made: list[Ints]

    def get_batch_sampler(self, dataset: Dataset, *_: object, **__: object) -> "FixedBatches":
        """The precomputed batches; the options are ignored."""
        return FixedBatches(dataset, self.made)


class FixedBatches(DefaultBatchSampler):
    """Yields precomputed batches of row numbers, in order."""

    def __init__(self, dataset: Dataset, made: list[Ints]) -> None:
        super().__init__(dataset, batch_size=max(map(len, made), default=1), drop_last=False)
        self._made = made

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in self._made)


class JournalCallback(TrainerCallback):
    """Writes the trainer's log to the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write a line; called every 50 steps and at the end, and logs in the first process only. Raises UserError
        where the training has diverged."""
        require_finite({name: value for name, value in (logs or {}).items() if name in LOSSES}, state.global_step)
        if state.is_world_process_zero and logs and "loss" in logs:
            line = {name: value for name, value in logs.items() if name in {"loss", "learning_rate", "grad_norm"}}
            self._journal.write({"step": state.global_step, **line})


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint of a run, without any that was cut off: the trainer writes its own state last."""
    for path in folder.glob("checkpoint-*"):
        if not (path / TRAINER_STATE_NAME).exists():
            shutil.rmtree(path, ignore_errors=True)
    found: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
    return found
