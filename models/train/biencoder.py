"""`tagbus train biencoder`: an encoder that places contents near their tags and near contents that share them.

    tagbus train biencoder examples --out runs/examples                      on a GPU: any encoder, all layers
    tagbus train biencoder examples --out runs/examples --recipe top-layers  on a CPU: the top layers (top_layers.py)
    tagbus export --model runs/examples --out triton_repo/encoder/2

A round embeds everything with the current encoder, mines hard negatives, clusters the contents, and trains one epoch
with sentence-transformers' trainer. plan.json holds the options of a run, metrics.jsonl its log.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import torch
import typer
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainingArguments,
)

from tagbus.models.data.corpus import Corpus, select, tagged
from tagbus.models.data.texts import tag_texts, text_of
from tagbus.models.data.truth import Truth, numbers_of
from tagbus.models.export.bert import max_tokens, require_tokens, weights_folder
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train import mine, top_layers
from tagbus.models.train.pairs import FalseNegatives, Ints, JournalCallback, Loss, PairLoss, Trainer, last_checkpoint
from tagbus.models.train.plan import begin
from tagbus.stream import quality
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError

Vectors = NDArray[np.float32]

# Negatives are drawn from this many nearest wrong tags (2023.emnlp-industry.30, section 3.1).
AMONG: Final = 100


class Plan(BaseModel):
    """The options of a run, stored as plan.json next to the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["full"] = "full"
    corpus: str
    base: str
    loss: Loss = Field("contrastive", description="masked_ranking or decoupled_contrastive of losses.py")
    false_negatives: FalseNegatives = Field("masked", description="how other right tags in a batch are treated")
    parents: Literal["parents", "plain"] = Field(
        "plain", description="whether tag texts end with the names of the parents"
    )
    negatives: int = Field(3, ge=0, description="hard negatives per pair")
    cluster: int = Field(8, ge=1, description="similar contents that share a batch; 1: none")
    rounds: int = Field(3, ge=1)
    batch: int = Field(128, ge=2, description="pairs per device")
    rate: float = Field(5e-5, gt=0)
    tokens: int = Field(64, ge=3)
    seed: int = 0


def command(
    place: Annotated[str, typer.Argument(help="the corpus: a folder, or `topics`; see docs/training.md")],
    to: Annotated[
        Path, typer.Option("--out", help="folder of the encoder, its plan and its log; a run in it is resumed")
    ],
    recipe: Annotated[
        Literal["full", "top-layers"], typer.Option(help="top-layers: the top layers only, for a CPU")
    ] = "full",
    base: Annotated[Path | None, typer.Option(help="encoder to start from; MiniLM if unset")] = None,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="train on this many contents only")] = None,
    loss: Annotated[Loss, typer.Option(help="MultipleNegativesRanking, or RAE-XMC's over contents and tags")] = (
        "contrastive"
    ),
    false_negatives: Annotated[FalseNegatives, typer.Option(help="whether other right tags in a batch are masked")] = (
        "masked"
    ),
    parents: Annotated[Literal["parents", "plain"], typer.Option(help="add the parents' names to tag texts")] = "plain",
    negatives: Annotated[int, typer.Option(min=0, help="hard negatives per pair")] = 3,
    cluster: Annotated[int, typer.Option(min=1, help="similar contents that share a batch; 1: none")] = 8,
    layers: Annotated[int, typer.Option(min=1, help="layers to train with --recipe top-layers")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="epochs; negatives and clusters are renewed in each")] = 3,
    batch: Annotated[
        int | None, typer.Option(min=2, help="128 pairs, or 512 contents with --recipe top-layers")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="5e-5, or 1e-4 with --recipe top-layers")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=3, help="tokens per text: 64, or 32 with --recipe top-layers")
    ] = None,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
) -> None:
    """Train the encoder on the contents of PLACE. The same command resumes an interrupted run."""
    corpus, name = select(place, left_out, most)
    folder = base or weights_folder()
    if recipe == "top-layers":
        plan = top_layers.Plan(
            corpus=name,
            layers=layers,
            epochs=rounds,
            batch=batch or 512,
            rate=rate or 1e-4,
            tokens=tokens or 32,
            seed=seed,
        )
        top_layers.train(corpus, plan, folder, to)
        return
    full = Plan(
        corpus=name,
        base=str(folder),
        loss=loss,
        false_negatives=false_negatives,
        parents=parents,
        negatives=negatives,
        cluster=cluster,
        rounds=rounds,
        batch=batch or 128,
        rate=rate or 5e-5,
        tokens=tokens or 64,
        seed=seed,
    )
    train(corpus, full, to)


@dataclass(frozen=True, slots=True)
class Data:
    """The corpus as the rounds use it: texts on disk (Arrow, memory-mapped), the rest as arrays."""

    tags: list[Tag]
    texts: list[str]
    contents: Dataset
    truth: Truth
    held: Dataset
    held_truth: Truth


def read(corpus: Corpus, plan: Plan, to: Path) -> Data:
    """Training and validation contents. Raises UserError if there is nothing to train on."""
    tags = corpus.tags()
    numbers = {tag.id: number for number, tag in enumerate(tags)}

    def split(name: Literal["train", "val"]) -> tuple[Dataset, Truth]:
        truth = Truth.of(numbers_of(item, numbers) for item in tagged(corpus, name))
        if not len(truth):
            # The library makes no data set of nothing.
            return Dataset.from_dict({"text": []}), truth
        texts = _on_disk(lambda: ({"text": text_of(item)} for item in tagged(corpus, name)), to, name)
        if len(texts) != len(truth):
            raise UserError(f"{to / 'cache'} belongs to another corpus; delete it")
        return texts, truth

    if next(tagged(corpus, "train"), None) is None:
        raise UserError(f"{plan.corpus} has no contents to train on")
    return Data(tags, tag_texts(tags, plan.parents), *split("train"), *split("val"))


def train(corpus: Corpus, plan: Plan, to: Path) -> None:
    """Train round by round and write the encoder to `to`, in Hugging Face's format.

    With several processes (torchrun, accelerate) the first one mines; the batch size is per device.
    """
    torch.manual_seed(plan.seed)
    base = Path(plan.base)
    require_tokens(base, plan.tokens)
    with PartialState().main_process_first():
        begin(to, plan)
        data = read(corpus, plan, to)
    journal = Journal(to / JOURNAL)
    pairs = 0
    for number in range(plan.rounds):
        after = to / "rounds" / str(number + 1)
        if after.exists():
            continue
        model = SentenceTransformer(str(after.with_name(str(number)) if number else base), local_files_only=True)
        model.max_seq_length = plan.tokens
        if not number and PartialState().is_main_process:
            journal.write({"round": 0, **evaluate(model, data)})
        pairs += one_round(model, data, plan, number, to, journal)
        if PartialState().is_main_process:
            journal.write({"round": number + 1, **evaluate(model, data)}, pairs)
            publish(model, base, after)
        PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        shutil.copytree(to / "rounds" / str(plan.rounds), to, dirs_exist_ok=True)


def embed(model: SentenceTransformer, texts: Sequence[str]) -> Vectors:
    """Unit vectors of the texts, float32 [n, width]."""
    found = model.encode(texts, batch_size=256, normalize_embeddings=True, show_progress_bar=len(texts) > 5000)
    return np.asarray(found, np.float32)


@dataclass(frozen=True, slots=True)
class Mined:
    """The mined data of a round: batches of pair numbers, and hard negatives int64 [contents, plan.negatives]."""

    batches: list[Ints]
    negatives: Ints


def one_round(model: SentenceTransformer, data: Data, plan: Plan, number: int, to: Path, journal: Journal) -> int:
    """Mine, cluster and train one epoch. Returns the number of pairs."""
    folder = to / "steps" / str(number)
    with PartialState().main_process_first():
        mined = _mined(model, data, plan, number, folder / "mined.npz")
        pairs = _pairs(data, mined.negatives, number, to)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=plan.batch,
        # Decays from round to round and is constant within one.
        learning_rate=plan.rate * (plan.rounds - number) / plan.rounds,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=0 if number else min(100, len(mined.batches) // 10),
        bf16=torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=500,
        save_total_limit=1,
        logging_steps=50,
        # A loss that is no number must be seen.
        logging_nan_inf_filter=False,
        report_to="none",
        seed=plan.seed,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=pairs,
        loss=PairLoss(model, data.truth, len(data.tags), plan.loss, plan.false_negatives),
        callbacks=[JournalCallback(journal)],
    )
    trainer.made = mined.batches
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return sum(map(len, mined.batches))


def _mined(model: SentenceTransformer, data: Data, plan: Plan, number: int, path: Path) -> Mined:
    """Mine once per round; a resumed run reads the result from `path`."""
    if not path.exists():
        contents, tags = embed(model, data.contents["text"][:]), embed(model, data.texts)
        seed = plan.seed * 1000 + number
        negatives = mine.hard_negatives(contents, tags, data.truth, plan.negatives, AMONG, seed)
        order = mine.clusters(contents, plan.cluster, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, order=order, negatives=negatives)
        part.replace(path)
    with np.load(path, allow_pickle=False) as found:
        order, negatives = found["order"], found["negatives"]
    places, right = data.truth.pairs(order)
    starts = data.truth.starts[order]
    first = np.cumsum(np.diff(data.truth.starts)[order]) - np.diff(data.truth.starts)[order]
    pairs = starts[places] + np.arange(len(places)) - first[places]
    made = [pairs[rows] for rows in mine.batches(order[places], right, plan.batch)]
    # The leftover batches, which are smaller because no other pair fitted, have too few negatives.
    whole = [rows for rows in made if len(rows) == plan.batch] or made
    return Mined([whole[place] for place in np.random.default_rng(number).permutation(len(whole))], negatives)


def _pairs(data: Data, negatives: Ints, number: int, to: Path) -> Dataset:
    """Every right pair with its negatives, on disk: columns content, tag, negative_1 and so on, and label."""

    def rows() -> Iterator[dict[str, str | list[int]]]:
        for content, text in enumerate(data.contents["text"]):
            wrong = [int(tag) for tag in negatives[content]]
            named = {f"negative_{place}": data.texts[tag] for place, tag in enumerate(wrong, start=1)}
            for tag in data.truth[content]:
                yield {"content": text, "tag": data.texts[tag], **named, "label": [content, int(tag), *wrong]}

    return _on_disk(rows, to, f"round-{number}-{len(data.truth.tags)}")


def _on_disk(rows: Callable[[], Iterator[Mapping[str, object]]], to: Path, name: str) -> Dataset:
    # The library's own fingerprint would pickle the generator and everything it refers to.
    found = Dataset.from_generator(rows, cache_dir=str(to / "cache"), fingerprint=f"tagbus-{name}")
    if not isinstance(found, Dataset):
        raise TypeError(f"{found} is not a Dataset")
    return found


def evaluate(model: SentenceTransformer, data: Data) -> dict[str, float]:
    """Quality on the validation contents by cosine to the tag texts alone, in percent."""
    if not len(data.held_truth):
        return {}
    counts = np.bincount(data.truth.tags, minlength=len(data.tags)).astype(np.int64)
    contents, tags = embed(model, data.held["text"][:]), embed(model, data.texts)
    ranked = top_layers.nearest(contents, tags, np.zeros(len(tags), np.float32))
    figures = quality.measure(ranked, data.held_truth.lists(), quality.propensities(counts, len(data.truth)))
    return {f"by_text_{name}": round(value, 2) for name, value in asdict(figures).items() if name != "ece"}


def publish(model: SentenceTransformer, base: Path, to: Path) -> None:
    """Write the encoder atomically, with the maximum length of the base."""
    part = to.with_name(f"{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.max_seq_length = max_tokens(base)
    model.save_pretrained(str(part), create_model_card=False)
    part.replace(to)
