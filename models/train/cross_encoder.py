"""`tagbus train cross-encoder`: a cross-encoder that reads "[CLS] tag [SEP] content" and scores whether the tag fits.

    tagbus train cross-encoder examples --encoder triton_repo/encoder/1 --out runs/cross_encoder

Elsevier (2023.emnlp-industry.30, section 3.1): each right pair and three wrong ones, drawn from the 100 tags nearest by
the bi-encoder; binary cross-entropy; reranks the top 20 to 30. Trained with sentence-transformers. Next to the weights
it writes model.onnx (input_ids, attention_mask, token_type_ids int64 [batch, length] to score float32 [batch]) and
cross_encoder.json, as the tagger loads them; triton_repo/cross_encoder has the configuration for Triton. A tag's text
is the tagger's: name and aliases.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import onnx
import torch
import typer
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from torch import Tensor, nn
from transformers import PreTrainedModel

from tagbus.models.data.corpus import Corpus, select
from tagbus.models.data.texts import tag_texts, text_of
from tagbus.models.data.truth import Truth, numbers_of
from tagbus.models.export.bert import weights_folder
from tagbus.models.export.encoder import strip, to_float16
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train import mine
from tagbus.models.train.pairs import JournalCallback, last_checkpoint
from tagbus.models.train.plan import begin
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import MODEL, TOKENIZER, default_folder, load_release, sha256
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.onnx_runtime import onnxruntime
from tagbus.stream.rank.cross_encoder.model import MANIFEST, MOST_TOKENS, OUTPUT, Manifest, golden_of, name_of
from tagbus.stream.rank.cross_encoder.pairs import INPUTS, tag_text

AMONG: Final = 100
# Largest difference of a probability to torch in an exported model with float16 weights.
MOST: Final = 5e-3


class Plan(BaseModel):
    """The options of a run, stored as plan.json next to the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str
    base: str
    encoder: str = Field(description="release whose nearest tags are the candidates for negatives")
    negatives: int = Field(3, ge=1)
    epochs: int = Field(1, ge=1)
    batch: int = Field(64, ge=2)
    rate: float = Field(5e-5, gt=0)
    tokens: int = Field(96, ge=8, le=MOST_TOKENS, description="maximum length of tag and content together")
    seed: int = 0


def command(
    place: Annotated[str, typer.Argument(help="the corpus: a folder, or `topics`; see docs/training.md")],
    to: Annotated[
        Path, typer.Option("--out", help="folder of the model, its plan and its log; a run in it is resumed")
    ],
    encoder: Annotated[
        Path | None, typer.Option(help="version folder of the bi-encoder; the packaged one if unset")
    ] = (None),
    base: Annotated[Path | None, typer.Option(help="encoder to start from; MiniLM if unset")] = None,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    negatives: Annotated[int, typer.Option(min=1, help="wrong tags per right one")] = 3,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    batch: Annotated[int, typer.Option(min=2, help="pairs per device")] = 64,
    rate: Annotated[float, typer.Option(help="learning rate")] = 5e-5,
    tokens: Annotated[
        int, typer.Option(min=8, max=MOST_TOKENS, help="maximum length of tag and content together")
    ] = 96,
    most: Annotated[int | None, typer.Option(min=1, help="train on this many contents only")] = None,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
) -> None:
    """Train the cross-encoder on the contents of PLACE and export it. The same command resumes an interrupted run."""
    corpus, name = select(place, left_out, most)
    plan = Plan(
        corpus=name,
        base=str(base or weights_folder()),
        encoder=str(encoder or default_folder()),
        negatives=negatives,
        epochs=epochs,
        batch=batch,
        rate=rate,
        tokens=tokens,
        seed=seed,
    )
    train(corpus, plan, to)


def train(corpus: Corpus, plan: Plan, to: Path) -> None:
    """Train and export the model to `to`. Raises UserError if there is nothing to train on."""
    torch.manual_seed(plan.seed)
    begin(to, plan)
    rows = asyncio.run(labelled(corpus, plan))
    if not rows["label"]:
        raise UserError(f"{plan.corpus} has no contents to train on")
    model = CrossEncoder(plan.base, num_labels=1, max_length=plan.tokens, local_files_only=True)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(to / "steps"),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=plan.batch,
        learning_rate=plan.rate,
        warmup_steps=min(100, len(rows["label"]) // plan.batch // 10),
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
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        loss=BinaryCrossEntropyLoss(model),
        callbacks=[JournalCallback(Journal(to / JOURNAL))],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(to / "steps"))
    model.save_pretrained(str(to), create_model_card=False)
    export(model, plan, to)


async def labelled(corpus: Corpus, plan: Plan) -> dict[str, list[str] | list[float]]:
    """Columns tag, content and label (1 or 0): each right pair, and plan.negatives wrong ones per right one."""
    tags = corpus.tags()
    texts, numbers = tag_texts(tags), {tag.id: number for number, tag in enumerate(tags)}

    found = [(text_of(item), numbers_of(item, numbers)) for item in corpus.exemplars("train")]
    truth = Truth.of(tags for _, tags in found)
    encoder = OnnxEncoder(Path(plan.encoder))
    try:
        vectors, around = await encoder.encode([text for text, _ in found]), await encoder.encode(texts)
    finally:
        await encoder.close()
    count = min(AMONG, len(tags) - int(np.diff(truth.starts).max(initial=0)))
    if count < 1:
        raise UserError(f"{plan.corpus} has a content that every tag is right for: it has no wrong ones to learn from")
    wrong = mine.hard_negatives(vectors, around, truth, count, AMONG, plan.seed)
    read = [tag_text(tag.name, tag.aliases) for tag in tags]
    rows = list(_rows([text for text, _ in found], read, truth, wrong, plan.negatives))
    return {"tag": [row[0] for row in rows], "content": [row[1] for row in rows], "label": [row[2] for row in rows]}


def _rows(
    contents: list[str], tags: list[str], truth: Truth, wrong: NDArray[np.int64], negatives: int
) -> Iterator[tuple[str, str, float]]:
    """Each right pair and its wrong ones. The wrong tags of a content are already in random order."""
    for content, text in enumerate(contents):
        for place, tag in enumerate(truth[content]):
            yield tags[tag], text, 1.0
            for other in range(place * negatives, (place + 1) * negatives):
                yield tags[wrong[content, other % wrong.shape[1]]], text, 0.0


class Scorer(nn.Module):
    """The model to export: token ids to a probability."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """int64 [batch, length] three times, to float32 [batch]."""
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return torch.sigmoid(found.logits[:, 0])


def export(model: CrossEncoder, plan: Plan, to: Path) -> None:
    """Write model.onnx (float16 weights) and cross_encoder.json. Raises ReleaseMismatch if it differs from torch."""
    pairs = [("tea", "A history of tea"), ("fishing rights", "Soil carbon, nitrogen and the growth of Scots pine " * 3)]
    feed = dict(
        model.tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, truncation=True, return_tensors="pt")
    )
    if model.model is None:
        raise TypeError("the cross-encoder has no transformer")
    # The attention implementation that exports as plain nodes.
    model.model.set_attn_implementation("eager")
    scorer = Scorer(model.model).float().cpu().eval()
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=MOST_TOKENS)}
    program = torch.onnx.export(
        scorer,
        tuple(feed[name] for name in INPUTS),
        dynamo=True,
        dynamic_shapes=dict.fromkeys(INPUTS, axes),
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    strip(proto)
    whole = to_float16(proto).SerializeToString(deterministic=True)
    onnx.checker.check_model(onnx.load_from_string(whole), full_check=True)
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    # More padding and one more row than the model was traced with.
    wider = {name: torch.nn.functional.pad(torch.cat([feed[name], feed[name][:1]]), (0, 5)) for name in INPUTS}
    with torch.no_grad():
        expected = scorer(*(wider[name] for name in INPUTS)).numpy()
    found = session.run([OUTPUT], {name: tensor.numpy() for name, tensor in wider.items()})[0]
    # Negated, so that NaN fails too.
    if not (far := float(np.abs(found - expected).max())) <= MOST:
        raise ReleaseMismatch(f"the exported cross-encoder is too far from torch: {far:.1e} > {MOST:.0e}")
    (to / MODEL).write_bytes(whole)
    tokenizer = (to / TOKENIZER).read_bytes()
    manifest = Manifest(
        name=name_of(whole, tokenizer),
        encoder=load_release(Path(plan.encoder)).name,
        max_tokens=plan.tokens,
        content_template="{title}\n{text}",
        tag_template="{name}\n{aliases}",
        model_sha256=sha256(whole),
        tokenizer_sha256=sha256(tokenizer),
    )
    golden = golden_of(manifest, whole, tokenizer.decode())
    (to / MANIFEST).write_text(
        manifest.model_copy(update={"golden": golden}).model_dump_json(indent=2) + "\n", encoding="utf-8"
    )
