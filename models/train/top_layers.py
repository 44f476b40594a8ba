"""`tagbus train biencoder --recipe top-layers`: trains the top layers of an encoder against all tags, on a CPU.

The lower layers are frozen and their hidden states cached on disk (hidden.py). Every step trains the top layers against
all tags; each tag is a free vector, initialised with the embedding of its text. Tag texts are training rows too
(Renee, Jain et al. 2023, table 12), so that the text of a new tag is embedded near its contents.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tagbus.models.data.corpus import Corpus, tagged
from tagbus.models.data.texts import tag_texts, text_of
from tagbus.models.data.truth import numbers_of
from tagbus.models.export.bert import WEIGHTS, Bert, require_tokens, transposed
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train.hidden import HiddenStates, Row, StateReader, cached
from tagbus.models.train.losses import SCALE, decoupled_softmax, require_finite
from tagbus.models.train.plan import begin
from tagbus.models.train.saving import save_state, save_weights
from tagbus.stream import quality
from tagbus.stream.app import console
from tagbus.stream.contract.events import Tag
from tagbus.stream.encoder.release import sha256
from tagbus.stream.errors import UserError
from tagbus.stream.recall.tagvectors import FILE, TagVectors

STATE: Final = "state.pt"
# Batches sorted by length together: more of them shuffle less, fewer add more padding.
BUCKET: Final = 16
SAVE_STEPS: Final = 200
WARM_UP: Final = 200
K: Final = 10


class Plan(BaseModel):
    """The options of a run, stored as plan.json next to the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["top-layers"] = "top-layers"
    corpus: str
    layers: int = Field(2, ge=1, description="top layers to train")
    tokens: int = Field(32, ge=3, description="maximum tokens of a text in training")
    epochs: int = Field(3, ge=1)
    batch: int = Field(512, ge=1, description="contents per step")
    rate: float = Field(1e-4, gt=0, description="peak learning rate of the layers; cosine schedule with warm-up")
    tag_rate: float = Field(1e-3, gt=0, description="peak learning rate of the tag vectors")
    dropout: float = Field(0.1, ge=0, lt=1)
    seed: int = 0


class TopLayers(Bert):
    """The top layers as parameters, and the tags: embeddings of their texts `names` [t, width], and offsets `free`."""

    def __init__(self, folder: Path, layers: int, names: Tensor) -> None:
        super().__init__(folder)
        self.first = self.layers - layers
        for name, weight in list(self.named_buffers()):
            del self._buffers[name]
            if any(name.startswith(f"encoder_layer_{layer}_") for layer in range(self.first, self.layers)):
                self.register_parameter(name, nn.Parameter(weight.clone()))
        self.names: Tensor
        self.register_buffer("names", names)
        self.free = nn.Parameter(torch.zeros_like(names))
        self.bias = nn.Parameter(torch.zeros(len(names)))

    def _weight(self, name: str) -> Tensor:
        return self.get_parameter(name)

    def vectors(self, states: Tensor, mask: Tensor, dropout: float = 0.0) -> Tensor:
        """Hidden states of the lower layers to unit vectors, float32 [n, width]."""
        with torch.autocast(states.device.type, torch.bfloat16):
            found = self.pool(self.run(states.float(), mask, self.first, self.layers, dropout), mask)
        return found.float()

    def logits(self, vectors: Tensor) -> Tensor:
        """The score of each tag for each content, bfloat16 [n, t]."""
        tags = (self.names + self.free).bfloat16()
        return functional.linear(SCALE * vectors.bfloat16(), tags) + self.bias.bfloat16()


def train(corpus: Corpus, plan: Plan, base: Path, to: Path) -> None:
    """Train, and write to `to` the encoder in Hugging Face's format and the tag vectors (`recall/tagvectors.py`).

    Resumes an interrupted run. Raises UserError if `to` has a run of another plan.
    """
    torch.manual_seed(plan.seed)
    require_tokens(base, plan.tokens)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bert = Bert(base).to(device)
    if plan.layers > bert.layers:
        raise UserError(f"--layers: {plan.layers} is wrong, the encoder has {bert.layers}")
    begin(to, plan)
    tags = corpus.tags()
    reader = StateReader(base, bert, bert.layers - plan.layers, plan.tokens)
    parts = {part: _hidden(part, corpus, tags, plan, base, to, reader) for part in ("tags", "val", "train")}
    if not len(parts["train"]):
        raise UserError(f"{plan.corpus} has no contents to train on")
    # The untrained top layers on cached states give the embeddings of the base, without another pass over the texts.
    start = TopLayers(base, plan.layers, torch.zeros(len(tags), bert.width)).to(device)
    model = TopLayers(base, plan.layers, torch.from_numpy(embed(start, parts["tags"])).to(device)).to(device)
    fit(model, parts, plan, to, Journal(to / JOURNAL))
    vectors, bias = (found.detach().cpu().numpy() for found in (model.names + model.free, model.bias))
    (to / FILE).write_bytes(TagVectors(tuple(tag.id for tag in tags), vectors, bias, SCALE).dump())
    merge(base, {name: weight.cpu() for name, weight in model.state_dict().items()}, to)


def _hidden(
    part: str, corpus: Corpus, tags: list[Tag], plan: Plan, base: Path, to: Path, reader: StateReader
) -> HiddenStates:
    """The states of a split, or of the tag texts, each with its own tag as the right one."""
    numbers = {tag.id: number for number, tag in enumerate(tags)}

    def rows() -> Iterator[Row]:
        if part == "tags":
            yield from ((text, [number]) for number, text in enumerate(tag_texts(tags)))
        else:
            for item in tagged(corpus, "val" if part == "val" else "train"):
                yield text_of(item), numbers_of(item, numbers)

    key: dict[str, str | int] = {
        "corpus": plan.corpus,
        "tags": sha256("\n".join(tag.id for tag in tags).encode()),
        "base": sha256((base / WEIGHTS).read_bytes()),
        "layers": plan.layers,
        "tokens": plan.tokens,
    }
    total = len(tags) if part == "tags" else sum(1 for _ in tagged(corpus, "val" if part == "val" else "train"))
    with console.bar(f"lower layers, {part}", total) as bar:
        return cached(to / "lower" / part, key, rows(), reader, bar.advance)


def batches(lengths: NDArray[np.int64], size: int, seed: int) -> list[NDArray[np.int64]]:
    """All rows in shuffled batches of similar length: int64 row numbers."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    found = []
    for start in range(0, len(order), size * BUCKET):
        run = order[start : start + size * BUCKET]
        run = run[np.argsort(lengths[run], kind="stable")]
        found += [run[place : place + size] for place in range(0, len(run), size)]
    return [found[place] for place in random.permutation(len(found))]


def fit(model: TopLayers, parts: Mapping[str, HiddenStates], plan: Plan, to: Path, journal: Journal) -> None:
    """Train all epochs, resuming from state.pt."""
    layers = [weight for name, weight in model.named_parameters() if name.startswith("encoder_")]
    groups = [{"params": layers, "lr": plan.rate}, {"params": [model.free, model.bias], "lr": plan.tag_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    every = [*batches(parts["train"].lengths, plan.batch, 0), *batches(parts["tags"].lengths, plan.batch, 0)]
    steps = len(every) * plan.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    done = _resume(to / STATE, model, optimiser, schedule)
    if not done:
        journal.write({"epoch": 0, **evaluate(model, parts)})
    pairs = 0
    with console.bar("training", steps) as bar:
        for epoch in range(plan.epochs):
            for number, (part, rows) in enumerate(_epoch(parts, plan, epoch), start=epoch * len(every) + 1):
                if number <= done:
                    continue
                loss, count = _step(model, parts[part], rows, plan.dropout, layers, optimiser)
                schedule.step()
                require_finite({"softmax": loss}, number)
                pairs += count
                bar.to(number)
                if number % SAVE_STEPS == 0 or number == steps:
                    journal.write({"step": number, "loss": round(loss, 4)}, pairs)
                    _save(to / STATE, model, optimiser, schedule, number)
            if (epoch + 1) * len(every) > done:
                journal.write({"epoch": epoch + 1, **evaluate(model, parts)}, pairs)


def _epoch(parts: Mapping[str, HiddenStates], plan: Plan, epoch: int) -> list[tuple[str, NDArray[np.int64]]]:
    seed = plan.seed * 1000 + epoch
    found = [(part, rows) for part in ("train", "tags") for rows in batches(parts[part].lengths, plan.batch, seed)]
    return [found[place] for place in np.random.default_rng(seed).permutation(len(found))]


def _rate(step: int, steps: int) -> float:
    """Warm-up, then a cosine from 1 to 0."""
    return min(1.0, (step + 1) / min(WARM_UP, max(1, steps // 10))) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


def _step(
    model: TopLayers,
    hidden: HiddenStates,
    rows: NDArray[np.int64],
    dropout: float,
    layers: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
) -> tuple[float, int]:
    """Take a step on a batch. Returns its loss and number of pairs."""
    device = model.free.device
    states, mask = (tensor.to(device) for tensor in hidden.batch(rows))
    right, tags = (torch.from_numpy(array).to(device) for array in hidden.truth.pairs(rows))
    loss = decoupled_softmax(model.logits(model.vectors(states, mask, dropout)), right, tags)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(layers, 1.0)
    optimiser.step()
    return float(loss.detach()), len(tags)


@torch.inference_mode()
def embed(model: TopLayers, hidden: HiddenStates) -> NDArray[np.float32]:
    """Unit vectors of all texts, float32 [n, width]."""
    found = np.zeros((len(hidden), model.width), np.float32)
    for rows in batches(hidden.lengths, 256, 0) if len(hidden) else []:
        states, mask = (tensor.to(model.free.device) for tensor in hidden.batch(rows))
        found[rows] = model.vectors(states, mask).cpu().numpy()
    return found


def evaluate(model: TopLayers, parts: Mapping[str, HiddenStates]) -> dict[str, float]:
    """Quality on the validation contents by the free vectors, and by cosine to the tag texts as `by_text_...`."""
    truth = parts["val"].truth.lists()
    if not truth:
        return {}
    counts = np.bincount(parts["train"].truth.tags, minlength=len(model.names)).astype(np.int64)
    propensity = quality.propensities(counts, len(parts["train"]))
    contents, texts = embed(model, parts["val"]), embed(model, parts["tags"])
    free, bias = (model.names + model.free).detach().cpu().numpy(), model.bias.detach().cpu().numpy()
    zero = np.zeros_like(bias)
    found = {}
    for prefix, tags, offset in (("", free, bias), ("by_text_", texts, zero)):
        figures = quality.measure(nearest(contents, tags, offset), truth, propensity)
        # Scores are not confidences here, so ECE is meaningless.
        found.update({prefix + name: round(value, 2) for name, value in asdict(figures).items() if name != "ece"})
    return found


def nearest(contents: NDArray[np.float32], tags: NDArray[np.float32], bias: NDArray[np.float32]) -> quality.Ranked:
    """The ten best tags of each content by SCALE times the dot product, plus the bias."""
    most = min(K, len(tags))
    indices = np.full((len(contents), K), -1, np.int64)
    scores = np.zeros((len(contents), K), np.float64)
    for start in range(0, len(contents), 512):
        logits = torch.from_numpy(SCALE * contents[start : start + 512] @ tags.T + bias)
        best = logits.topk(most, dim=1)
        indices[start : start + 512, :most] = best.indices.numpy()
        scores[start : start + 512, :most] = best.values.sigmoid().numpy()
    return quality.Ranked(indices, scores)


def _resume(
    path: Path, model: TopLayers, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR
) -> int:
    """Restore model, optimiser and schedule from state.pt. Returns its step, 0 without one."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["m"])
    optimiser.load_state_dict(state["o"])
    schedule.load_state_dict(state["s"])
    return int(state["step"])


def _save(
    path: Path,
    model: TopLayers,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    step: int,
) -> None:
    state = {"m": model.state_dict(), "o": optimiser.state_dict(), "s": schedule.state_dict(), "step": step}
    save_state(path, state)


def merge(base: Path, trained: Mapping[str, Tensor], to: Path) -> None:
    """Write the base's Hugging Face folder with its layers replaced by those in `trained`.

    `trained` is the state dict of TopLayers (`encoder_layer_4_output_dense_weight` and so on); its other entries are
    ignored.
    """
    copy_rest(base, to)
    weights = load_file(base / WEIGHTS)
    for name, weight in weights.items():
        if (found := trained.get(name.replace(".", "_"))) is not None:
            weights[name] = transposed(name, found.to(weight.dtype))
    save_weights(to / WEIGHTS, weights)


def copy_rest(base: Path, to: Path) -> None:
    """Copy a Hugging Face folder without its weights and the journal of its own training."""
    to.mkdir(parents=True, exist_ok=True)
    for path in base.iterdir():
        if path.is_dir():
            shutil.copytree(path, to / path.name, dirs_exist_ok=True)
        elif path.name not in {WEIGHTS, JOURNAL}:
            shutil.copyfile(path, to / path.name)
