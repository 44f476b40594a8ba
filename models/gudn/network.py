"""The guide network: BERT with all weights trained, classifiers over its [CLS] states, and the losses of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagbus.models.export.bert import Bert
from tagbus.models.gudn.losses import feature_loss, tag_loss
from tagbus.models.gudn.negatives import chosen, matrix
from tagbus.models.gudn.plan import Plan
from tagbus.stream.errors import UserError
from tagbus.stream.recall.classifier.model import LENGTHS

POOLER: Final = "pooler_dense"
# Of the hidden states in training, as BERT itself was trained.
HIDDEN_DROPOUT: Final = 0.1


@dataclass(frozen=True, slots=True)
class Contents:
    """n texts with their right pairs, and their labels as token ids; the labels are there in training alone."""

    ids: Tensor
    mask: Tensor
    rows: Tensor
    tags: Tensor
    label_ids: Tensor | None
    label_mask: Tensor | None


class GuideNetwork(Bert):
    """BERT, the classifier of texts, and what labels guide with.

    `logits` is all that inference runs: it takes a text and no labels.
    """

    def __init__(self, folder: Path, plan: Plan, tags: int) -> None:
        """Raises UserError if the folder holds no BERT, or one with fewer layers or places than the plan reads."""
        super().__init__(folder)
        self.plan = plan
        text, label = plan.layers
        for option, layers in (("--text-layers", text), ("--label-layers", label)):
            if layers > self.layers:
                raise UserError(f"{option}: {layers} is wrong, expected 1 to {self.layers}, which the encoder has")
        places = len(self.get_buffer("embeddings_position_embeddings_weight"))
        # Texts are padded to a few lengths, where the model is served.
        if next(length for length in LENGTHS if length >= plan.tokens) > places:
            raise UserError(f"--tokens: {plan.tokens} is wrong, expected at most {longest(places)} with this encoder")
        self._trained()
        self.classifier = nn.Linear(text * self.width, tags)
        self.linker = self.classifier if plan.form.shared else nn.Linear(label * self.width, tags)
        self.pooler = self._pooler() if plan.form.shared else None
        # What labels are without their names: a free vector a tag, summed over the tags of a content.
        hot = plan.labels == "multi-hot"
        self.free = nn.Parameter(0.02 * torch.randn(tags, label * self.width)) if hot else None
        self.dropout = nn.Dropout(plan.form.dropout)

    def _trained(self) -> None:
        """Turn the loaded weights, position numbers and a pooler excepted, into parameters."""
        weights = {name: weight for name, weight in self.named_buffers() if weight.is_floating_point()}
        self._buffers.clear()
        for name, weight in weights.items():
            if name.startswith(POOLER):
                self.register_buffer(name, weight, persistent=False)
            else:
                self.register_parameter(name, nn.Parameter(weight.clone()))

    def _weight(self, name: str) -> Tensor:
        return self.get_parameter(name)

    def _pooler(self) -> nn.Linear:
        """BERT's pooler, with its own weights where the folder has them."""
        found = nn.Linear(self.width, self.width)
        loaded = dict(self.named_buffers())
        if f"{POOLER}_weight" in loaded:
            found.weight.data.copy_(loaded[f"{POOLER}_weight"].T)
            found.bias.data.copy_(loaded[f"{POOLER}_bias"])
        return found

    def heads_of_tags(self) -> list[nn.Parameter]:
        """The weights that are not BERT's own."""
        parts: Sequence[nn.Module] = (self.classifier, self.linker)
        found = {id(weight): weight for part in parts for weight in part.parameters()}
        return [*found.values(), *([] if self.free is None else [self.free])]

    def features(self, ids: Tensor, mask: Tensor, layers: int) -> Tensor:
        """The [CLS] states of the last layers side by side, the last one first: [n, layers * width]."""
        x, states = self.embed(ids), []
        dropout = HIDDEN_DROPOUT if self.training else 0.0
        with self._reduced(ids.device):
            for layer in range(self.layers):
                x = self.run(x, mask, layer, layer + 1, dropout)
                states.append(x[:, 0])
        return torch.cat(states[::-1][:layers], dim=-1).to(self.classifier.weight.dtype)

    def _reduced(self, device: torch.device) -> torch.autocast:
        """In training, products in the plan's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.training and self.plan.precision == "bfloat16")

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids int64 [n, length] of texts and their mask to a logit per tag, [n, t]."""
        found: Tensor = self.classifier(self.dropout(self.features(ids, mask, self.plan.layers[0])))
        return found

    def losses(self, batch: Contents) -> Mapping[str, Tensor]:
        """The class loss, and the guides' losses that the plan has, each with its weight."""
        form, (text, label) = self.plan.form, self.plan.layers
        read = self.features(batch.ids, batch.mask, text)
        columns = self._columns(read, batch)
        right = matrix(batch.rows, batch.tags, len(batch.ids), columns).to(read.dtype)
        found = {"class": tag_loss(self._scores(self.classifier, read, columns), right, form.output, form.reduction)}
        if not self.plan.guided:
            return found
        guide = self._guide(batch, label)
        if self.plan.feature:
            found["feature"] = self.plan.feature * feature_loss(*self._compared(read, guide))
        if self.plan.link:
            scores = self._scores(self.linker, guide, columns)
            found["link"] = self.plan.link * tag_loss(scores, right, form.output, form.reduction)
        return found

    def _columns(self, read: Tensor, batch: Contents) -> Tensor:
        """The tags that the step is about."""
        count = self.classifier.out_features
        if not self.plan.negatives:
            return torch.arange(count, device=read.device)
        with torch.no_grad():
            logits = self.classifier(read)
        return chosen(logits, batch.rows, batch.tags, self.plan.negatives)

    def _scores(self, classifier: nn.Linear, features: Tensor, columns: Tensor) -> Tensor:
        dropped = self.dropout(features)
        with self._reduced(features.device):
            if len(columns) == classifier.out_features:
                found: Tensor = classifier(dropped)
            else:
                found = functional.linear(dropped, classifier.weight[columns], classifier.bias[columns])
        return found.to(features.dtype)

    def _guide(self, batch: Contents, layers: int) -> Tensor:
        """The features of the contents' labels, [n, layers * width]."""
        if self.free is not None:
            summed = torch.zeros(len(batch.ids), self.free.shape[1], dtype=self.free.dtype, device=self.free.device)
            return summed.index_add(0, batch.rows, self.free[batch.tags])
        if batch.label_ids is None or batch.label_mask is None:
            raise ValueError("a guide that reads labels was given none")
        return self.features(batch.label_ids, batch.label_mask, layers)

    def _compared(self, read: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """What the feature loss compares: the pooled last states in the public code, else the layers that both have."""
        if self.pooler is not None:
            pooled = (self.pooler(one[:, : self.width]).tanh() for one in (read, guide))
            return next(pooled), next(pooled)
        width = min(read.shape[1], guide.shape[1])
        return read[:, :width], guide[:, :width]


def longest(places: int) -> int:
    """The most tokens of a text with an encoder of so many positions."""
    return max(length for length in LENGTHS if length <= places)
