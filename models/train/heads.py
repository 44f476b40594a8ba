"""`tagbus train heads`: one classifier vector per known tag, over a bag of words and the frozen encoder's vector.

    tagbus train heads CORPUS --out FOLDER

The family of Astec (Dahiya et al. 2021, WSDM) and SiameseXML (Dahiya et al. 2021, ICML): a TF-IDF weighted embedding
bag, a residual block, dropout, and a vector per tag, initialised with the embedding of its name, or with the vector
that the encoder was trained with. Term vectors are initialised with the terms' embeddings. Every step scores all tags
(decoupled softmax), so nothing is sampled.
"""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tagbus.models.data.corpus import open_corpus, without
from tagbus.models.export.heads_graph import Precision
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train.heads_export import BEST, ExportOptions, export
from tagbus.models.train.losses import SCALE, decoupled_softmax, require_finite
from tagbus.models.train.saving import save_state
from tagbus.models.train.training_set import Examples, TrainingSet, gather
from tagbus.stream import quality
from tagbus.stream.app import console
from tagbus.stream.config import load
from tagbus.stream.errors import UserError
from tagbus.stream.recall.heads import model as heads
from tagbus.stream.recall.words import Bags

CHECKPOINT: Final = "checkpoint.pt"
# Batch size for evaluation.
BATCH: Final = 512
DECAY: Final = 0.01
WARM_UP: Final = 100
LOGGED: Final = 50

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of heads.

    Terms are words in at least `words` contents and bigrams in at least `bigrams`, at most `terms` of them, hashed into
    `rows` rows (0: a row each). `named`: how many times per epoch each tag's name is a training content of that tag
    (Renee, Jain et al. 2023, MLSys, table 12). `every`: steps between checkpoints.
    """

    words: int = 2
    bigrams: int = 4
    terms: int = 300_000
    rows: int = 0
    named: int = 0
    epochs: int = 3
    batch: int = 512
    rate: float = 1e-3
    feature_dropout: float = 0.3
    dropout: float = 0.4
    seed: int = 0
    every: int = 1000


class Heads(nn.Module):
    """Bags and vectors [n, d] of contents to a logit per tag [n, t]."""

    names: Tensor

    def __init__(self, terms: Floats, names: Floats, feature_dropout: float = 0.3, dropout: float = 0.4) -> None:
        """Initialise with unit embeddings of the terms [terms, d] and of the tag names [t, d]."""
        super().__init__()
        d = terms.shape[1]
        self.bag = nn.EmbeddingBag.from_pretrained(torch.from_numpy(terms), freeze=False, mode="sum", sparse=True)
        self.project = nn.Linear(d, d, bias=False)
        self.inner = nn.Linear(d, d)
        self.outer = nn.Linear(d, d)
        self.free = nn.Parameter(torch.zeros(names.shape))
        self.bias = nn.Parameter(torch.zeros(len(names)))
        self.register_buffer("names", torch.from_numpy(names))
        self.dropout = nn.Dropout(dropout)
        self.feature_dropout = feature_dropout
        nn.init.eye_(self.project.weight)
        # The residual block starts at zero, so that training starts in the encoder's space.
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def content(self, terms: Tensor, starts: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
        """The vector of each content [n, d], of length SCALE."""
        if self.training:
            weights = weights * (torch.rand_like(weights) >= self.feature_dropout)
        hidden = self.bag(terms, starts, per_sample_weights=weights) + self.project(vectors)
        hidden = hidden + self.outer(functional.gelu(self.inner(self.dropout(hidden))))
        normal: Tensor = self.dropout(functional.normalize(hidden, dim=1))
        return SCALE * normal

    def forward(self, terms: Tensor, starts: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
        """int64 [m], int64 [n], float32 [m], float32 [n, d] to logits [n, t]: bfloat16 in training, else float32.

        On all tags of YSO bfloat16 is twice as fast as float32, on processors that support it.
        """
        kind = torch.bfloat16 if self.training else torch.float32
        content = self.content(terms, starts, weights, vectors)
        return functional.linear(content.to(kind), (self.names + self.free).to(kind), self.bias.to(kind))


def tensors(bags: Bags, vectors: Floats, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs of `Heads` for a batch of contents."""
    arrays = (bags.terms, bags.starts, bags.weights, np.ascontiguousarray(vectors))
    terms, starts, weights, rows = (torch.from_numpy(array).to(device) for array in arrays)
    return terms, starts, weights, rows


class Trainer:
    """Heads, their optimizers and the current step."""

    def __init__(self, training_set: TrainingSet, recipe: Recipe) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # For the linear layers, the only randomly initialised weights.
        torch.manual_seed(recipe.seed)
        self.heads = Heads(training_set.terms, training_set.names, recipe.feature_dropout, recipe.dropout).to(
            self.device
        )
        self.training_set, self.recipe, self.step = training_set, recipe, 0
        dense = [weight for name, weight in self.heads.named_parameters() if name != "bag.weight"]
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.SparseAdam([self.heads.bag.weight], lr=recipe.rate),
            torch.optim.AdamW(dense, lr=recipe.rate, weight_decay=DECAY),
        )

    @property
    def steps(self) -> int:
        """Total steps."""
        return self.recipe.epochs * self.per_epoch

    @property
    def contents(self) -> int:
        """Training contents, without the tag names that are rows of the training set too."""
        return len(self.training_set.train) - self.recipe.named * len(self.training_set.tags)

    @property
    def per_epoch(self) -> int:
        """Steps per epoch; a remainder that fills no batch is left to another epoch's order."""
        return max(1, len(self.training_set.train) // self.recipe.batch)

    def advance(self) -> float:
        """Take one step and return the loss. Randomness depends on seed and step alone, so resuming changes nothing."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        cosine = (1 + math.cos(math.pi * self.step / self.steps)) / 2
        rate = self.recipe.rate * cosine * min(1, (self.step + 1) / WARM_UP)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = rate
        self.heads.train()
        some = self.training_set.train.some(self._rows())
        rows, tags = (torch.from_numpy(array).to(self.device) for array in some.pairs())
        loss = decoupled_softmax(self.heads(*tensors(some.bags, some.vectors, self.device)), rows, tags)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers:
            optimizer.step()
        self.step += 1
        return loss.item()

    def _rows(self) -> Ints:
        epoch, place = divmod(self.step, self.per_epoch)
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.training_set.train))
        # Ascending, because the vectors are read from a file.
        return np.sort(order[place * self.recipe.batch :][: self.recipe.batch])

    def quality(self, part: Examples) -> quality.Quality | None:
        """Quality on held-out contents; None without any."""
        if not len(part):
            return None
        propensity = quality.propensities(self.training_set.counts, len(self.training_set.train))
        numbers, chances = (np.concatenate(arrays) for arrays in zip(*self._predict(part), strict=True))
        return quality.measure(quality.Ranked(numbers, chances), part.truth(), propensity)

    def _predict(self, part: Examples) -> Iterator[tuple[Ints, NDArray[np.float64]]]:
        self.heads.eval()
        with torch.no_grad():
            for start in range(0, len(part), BATCH):
                some = part.some(np.arange(start, min(start + BATCH, len(part))))
                logits = self.heads(*tensors(some.bags, some.vectors, self.device))
                chances, numbers = logits.softmax(1).topk(min(10, logits.shape[1]), dim=1)
                yield numbers.cpu().numpy(), chances.cpu().numpy().astype(np.float64)

    def save(self, path: Path) -> None:
        """Replace the checkpoint atomically."""
        states = [optimizer.state_dict() for optimizer in self._optimizers]
        about = self._about()
        save_state(path, {"about": about, "step": self.step, "heads": self.heads.state_dict(), "optimizers": states})

    def resume(self, path: Path) -> Self:
        """Resume from a checkpoint. Raises UserError if its data or recipe differ."""
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.device)
        for field, value in self._about().items():
            if found["about"].get(field) != value:
                was = found["about"].get(field)
                raise UserError(
                    f"{path}: {field} is {was!r}, but this run has {value!r}; delete the checkpoint to start over"
                )
        self.heads.load_state_dict(found["heads"])
        for optimizer, state in zip(self._optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step = found["step"]
        return self

    def _about(self) -> dict[str, int | float | str]:
        return asdict(self.recipe) | {"data": self.training_set.digest}


def train(trainer: Trainer, folder: Path) -> None:
    """Train to the end, resuming from the folder's checkpoint if it has one. Logs to metrics.jsonl."""
    # Before the checkpoint is read: it locks the folder.
    journal, path = Journal(folder / JOURNAL), folder / CHECKPOINT
    if path.exists():
        trainer.resume(path)
        console.say(f"heads: resuming at step {trainer.step} of {trainer.steps} ({path})")
    first = trainer.step
    losses: list[float] = []
    with console.bar("training heads", trainer.steps) as bar:

        def note(**values: object) -> None:
            contents = (trainer.step - first) * trainer.recipe.batch
            journal.write({"step": trainer.step, **values}, contents=contents)

        bar.to(trainer.step)
        while trainer.step < trainer.steps:
            losses.append(trainer.advance())
            require_finite({"softmax": losses[-1]}, trainer.step)
            bar.to(trainer.step)
            if trainer.step % LOGGED == 0:
                note(loss=float(np.mean(losses)))
                losses.clear()
            if trainer.step % trainer.per_epoch == 0:
                found = trainer.quality(trainer.training_set.val)
                note(epoch=trainer.step // trainer.per_epoch, **({} if found is None else {"val": asdict(found)}))
            if trainer.step % trainer.recipe.every == 0 or trainer.step == trainer.steps:
                trainer.save(path)


def command(
    corpus: Annotated[str, typer.Argument(help="folder with train and val contents, or `topics`")],
    to: Annotated[Path, typer.Option("--out", help="folder of the heads: heads.onnx, words.json, heads.json")],
    run: Annotated[Path | None, typer.Option(help="folder of checkpoint and metrics; --out if unset")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder to cache embeddings in")] = None,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    words: Annotated[int, typer.Option(min=1, help="least contents with a word")] = Recipe.words,
    bigrams: Annotated[int, typer.Option(min=1, help="least contents with a bigram")] = Recipe.bigrams,
    terms: Annotated[
        int, typer.Option(min=1, help="most words and bigrams; the most frequent are kept")
    ] = Recipe.terms,
    rows: Annotated[int, typer.Option(min=0, help="hash terms into this many rows; 0: a row per term")] = 0,
    named: Annotated[int, typer.Option(min=0, help="copies of each tag's name per epoch, as contents")] = Recipe.named,
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    batch: Annotated[int, typer.Option(min=1, help="contents per step")] = Recipe.batch,
    rate: Annotated[float, typer.Option(min=0, help="peak learning rate")] = Recipe.rate,
    feature_dropout: Annotated[float, typer.Option(min=0, max=0.99, help="dropout of terms")] = Recipe.feature_dropout,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="dropout of hidden units")] = Recipe.dropout,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="1 is fastest below about 10,000 tags")] = 1,
    best: Annotated[int, typer.Option(min=1, max=1000, help="tags returned per content")] = BEST,
    precision: Annotated[Precision, typer.Option(help="of the exported tables")] = "int8",
    keep: Annotated[int, typer.Option(min=0, help="export only this many terms, the most useful; 0: all")] = 0,
) -> None:
    """Train classifier heads on the training contents of CORPUS and evaluate them on the validation contents.

    The same command resumes an interrupted run from its checkpoint.
    """
    if keep and rows:
        raise UserError("--keep and --rows exclude each other: hashed terms have no names to choose among")
    # On two busy cores 8,578 contents and 2,485 tags took 1.5 CPU seconds an epoch with one thread, 18 with two.
    torch.set_num_threads(threads)
    recipe = Recipe(words, bigrams, terms, rows, named, epochs, batch, rate, feature_dropout, dropout, seed)
    folder = run or to
    folder.mkdir(parents=True, exist_ok=True)
    training_set = asyncio.run(gather(without(open_corpus(corpus), left_out), load(), folder, cache, recipe))
    trainer = Trainer(training_set, recipe)
    train(trainer, folder)
    manifest = export(trainer.heads, training_set, trainer.contents, to, ExportOptions(best, precision, keep))
    found = trainer.quality(training_set.val)
    measured = "no validation contents to measure on"
    if found is not None:
        measured = f"val P@1 {found.p_at_1:.2f}, nDCG@5 {found.ndcg_at_5:.2f}, R@10 {found.r_at_10:.2f}"
    console.print_line(
        f"{to}: {manifest.name}, {(to / heads.MODEL).stat().st_size / 1e6:.1f} MB, {len(training_set.tags)} tags, "
        f"{len(training_set.terms)} terms; {measured}"
    )
