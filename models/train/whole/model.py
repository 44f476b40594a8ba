"""The models of a run: encoders trained in every layer, each with a free vector per tag."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tagbus.models.export.bert import WEIGHTS, Bert, transposed
from tagbus.models.train.losses import SCALE
from tagbus.models.train.saving import save_weights
from tagbus.models.train.top_layers import batches, copy_rest
from tagbus.models.train.whole.rows import Ints, Rows
from tagbus.stream.errors import UserError
from tagbus.stream.recall.tagvectors import FILE, TagVectors

# Word embeddings are two thirds of a small encoder's weights, and most words are rare: they are frozen.
FROZEN: Final = "embeddings_word_embeddings_weight"
CONFIG: Final = "config.json"
SEGMENTS: Final = "embeddings.token_type_embeddings.weight"
POSITIONS: Final = "embeddings.position_embeddings.weight"
LAYER: Final = "encoder.layer."
# Texts per encoding batch.
ENCODED: Final = {"cpu": 128, "cuda": 4096}
# Ridge penalty, relative to the mean variance of a teacher's dimensions.
RIDGE: Final = 1e-2


class Trained(Bert):
    """Some layers of an encoder, all trained, and the tag vectors [t, width].

    An encoder wider than `width` has a projection to it.
    """

    def __init__(self, folder: Path, kept: Sequence[int], width: int, tags: int) -> None:
        super().__init__(folder)
        weights = cut(dict(self.named_buffers()), kept)
        self._buffers.clear()
        for name, weight in weights.items():
            if name == FROZEN:
                self.register_buffer(name, weight)
            else:
                self.register_parameter(name, nn.Parameter(weight.clone()))
        self.layers = len(kept)
        self.projection = nn.Parameter(torch.zeros(self.width, width)) if self.width != width else None
        self.offset = nn.Parameter(torch.zeros(width)) if self.width != width else None
        self.tags = nn.Parameter(torch.zeros(tags, width))
        # Learn in bfloat16 on a CPU too, which takes less than half the time there.
        self.reduced = False

    def _weight(self, name: str) -> Tensor:
        return self.get_buffer(name) if name == FROZEN else self.get_parameter(name)

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors before the projection, float32 [n, own width]."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.device.type == "cuda" or self.reduced):
            hidden = self.run(self.embed(ids), mask, 0, self.layers)
        return self.pool(hidden.float(), mask)

    def vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids int64 [n, length] and their mask to unit vectors, float32 [n, width]."""
        found = self.pooled(ids, mask)
        if self.projection is None or self.offset is None:
            return found
        return functional.normalize(found @ self.projection + self.offset, dim=1)

    def logits(self, vectors: Tensor) -> Tensor:
        """The score of each tag for each content [n, t], by the dimensions that the vectors have: float32, in bfloat16
        if `reduced` is set."""
        with torch.autocast(vectors.device.type, torch.bfloat16, enabled=self.reduced):
            return functional.linear(SCALE * vectors, self.tags[:, : vectors.shape[1]])

    def start(self, names: Rows, toward: Tensor | None = None) -> None:
        """Initialise the tag vectors to the vectors of the tags' texts.

        A projection is initialised to the ridge regression of `toward` [t, width], the students' vectors of the same
        texts, on its own vectors, so that teacher and students start in one space.
        """
        if self.projection is not None and self.offset is not None and toward is not None:
            weight, offset = ridge(encode(self.pooled, names, self.tags.device), toward)
            self.projection.data.copy_(weight)
            self.offset.data.copy_(offset)
        self.tags.data.copy_(encode(self.vectors, names, self.tags.device))


def cut(weights: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights of these layers only, numbered from 0, and of the embeddings."""
    # Older files number the positions among the weights.
    real = {name: weight for name, weight in weights.items() if weight.is_floating_point()}
    found = {name: weight for name, weight in real.items() if name.startswith("embeddings_")}
    for number, layer in enumerate(kept):
        old, new = f"encoder_layer_{layer}_", f"encoder_layer_{number}_"
        found |= {new + name.removeprefix(old): one for name, one in real.items() if name.startswith(old)}
    return found


def chosen(of: int, layers: int) -> list[int]:
    """Choose a student's layers evenly from the base's. Raises UserError if the base has fewer."""
    if not 1 <= layers <= of:
        raise UserError(f"--layers: {layers} is wrong, expected 1 to {of}, which the encoder has")
    return [number * of // layers for number in range(layers)]


@torch.no_grad()
def encode(
    forward: Callable[[Tensor, Tensor], Tensor],
    rows: Rows,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The vectors of all texts, float32 [n, d] on the device. `advance` is told how many more are done."""
    found: list[tuple[Ints, Tensor]] = []
    for places in batches(rows.lengths, ENCODED[device.type], 0):
        batch = rows.batch(places, device)
        found.append((places, forward(batch.ids, batch.mask).float()))
        advance(len(places))
    order = torch.from_numpy(np.argsort(np.concatenate([places for places, _ in found]))).to(device)
    return torch.cat([vectors for _, vectors in found])[order]


def ridge(known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The ridge regression of `wanted` [n, w] on `known` [n, d]: weight [d, w] and offset [w]."""
    known, wanted = known.double(), wanted.double()
    middle, goal = known.mean(0), wanted.mean(0)
    centred = known - middle
    square = centred.T @ centred
    penalty = RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
    weight = torch.linalg.solve(square + penalty, centred.T @ (wanted - goal))
    return weight.float(), (goal - middle @ weight).float()


def average(model: Trained) -> Trained:
    """Return a copy for the moving average of the weights."""
    return deepcopy(model).requires_grad_(requires_grad=False)


@torch.no_grad()
def follow(mean: Trained, model: Trained, decay: float) -> None:
    """Move the average towards the weights (Polyak and Juditsky 1992)."""
    for slow, fast in zip(mean.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def save(model: Trained, ids: Sequence[str], base: Path, kept: Sequence[int], to: Path) -> None:
    """Write the encoder in Hugging Face's format, cut from the base's folder, and its tag vectors."""
    copy_rest(base, to)
    config = json.loads((to / CONFIG).read_text(encoding="utf-8"))
    (to / CONFIG).write_text(json.dumps({**config, "num_hidden_layers": len(kept)}, indent=2), encoding="utf-8")
    mine = {name: weight.detach().cpu() for name, weight in (*model.named_parameters(), *model.named_buffers())}
    weights = {}
    for name, weight in load_file(base / WEIGHTS).items():
        if (found := renamed(name, kept)) is not None and (own := mine.get(found.replace(".", "_"))) is not None:
            weights[found] = transposed(name, own.to(weight.dtype)).contiguous()
        elif name == SEGMENTS:
            weights[name] = weight
    # `Bert` has added the embedding of the only segment to every position.
    weights[POSITIONS] = weights[POSITIONS] - weights[SEGMENTS][0]
    save_weights(to / WEIGHTS, weights)
    vectors = model.tags.detach().cpu().numpy()
    (to / FILE).write_bytes(TagVectors(tuple(ids), vectors, np.zeros(len(vectors), np.float32), SCALE).dump())


def renamed(name: str, kept: Sequence[int]) -> str | None:
    """Return Hugging Face's name of a weight after the cut; None if its layer is left out."""
    if not name.startswith(LAYER):
        return name
    layer, rest = name.removeprefix(LAYER).split(".", 1)
    return f"{LAYER}{list(kept).index(int(layer))}.{rest}" if int(layer) in kept else None
