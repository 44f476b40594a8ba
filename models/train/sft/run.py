"""`tagbus train sft`: a LoRA adapter for the judge, trained on people's decisions.

    tagbus train sft decisions.jsonl --tags tags.jsonl --model SmolLM2-135M-Instruct.Q4_1.gguf --out runs/judge
    llama-server -m SmolLM2-135M-Instruct.Q4_1.gguf --lora runs/judge/adapter.gguf

LLM4Tag (arXiv 2502.13481): supervised fine-tuning on the answers (eq. 8) and confidence training (eq. 11), their sum.
The prompts are the judge's own, by its settings and the model's chat template, so training and inference match.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import torch
import typer
from pydantic import BaseModel, ConfigDict, Field

from tagbus.models.data.texts import text_of
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train.plan import begin
from tagbus.models.train.saving import save_state
from tagbus.models.train.sft import adapter
from tagbus.models.train.sft.examples import Example, decided, decisions, diverse, examples, split
from tagbus.models.train.sft.losses import answer_loss, confidence, confidence_loss
from tagbus.models.train.sft.model import Trainable, load
from tagbus.stream.app import console, published
from tagbus.stream.app.places import files
from tagbus.stream.config import load as load_settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.errors import UserError
from tagbus.stream.llm.open import prompts_of
from tagbus.stream.llm.prompts import Prompts

STEPS: Final = "steps.pt"
# Held-out examples measured before and after.
MEASURED: Final = 500
SMOKE: Final = 8

Loss = Literal["both", "answer", "confidence"]


class Plan(BaseModel):
    """The options of a run, stored as plan.json next to the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feedback: str
    tags: str
    model: str
    prompt: str
    loss: Loss = "both"
    contents: int = Field(2000, ge=1, description="contents to train on, the most different ones")
    epochs: int = Field(1, ge=1)
    batch: int = Field(8, ge=1)
    rate: float = Field(1e-4, gt=0)
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    tokens: int = Field(1024, ge=16, description="of a prompt at most; it loses its beginning")
    seed: int = 0


def command(
    feedback: Annotated[str, typer.Argument(help="people's decisions, one JSON object per line; or `topic`")],
    model: Annotated[Path, typer.Option("--model", help="the language model, GGUF")],
    to: Annotated[Path, typer.Option("--out", help="folder of the adapter, its plan and its log; a run is resumed")],
    tags: Annotated[
        Path | None, typer.Option("--tags", help="the taxonomy, one tag per line; unset: the topic")
    ] = None,
    loss: Annotated[Loss, typer.Option(help="eq. 8 (answer), eq. 11 (confidence) of LLM4Tag, or their sum")] = "both",
    contents: Annotated[int, typer.Option(min=1, help="contents to train on, the most different ones")] = 2000,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    batch: Annotated[int, typer.Option(min=1, help="examples a step")] = 8,
    rate: Annotated[float, typer.Option(help="learning rate")] = 1e-4,
    rank: Annotated[int, typer.Option(min=1, help="of the adapter's matrices")] = 8,
    tokens: Annotated[int, typer.Option(min=16, help="of a prompt at most")] = 1024,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
    *,
    smoke: Annotated[bool, typer.Option("--smoke", help="a few contents and one epoch, to test that it runs")] = False,
) -> None:
    """Train an adapter for the judge on people's decisions, and write it as GGUF and for peft."""
    settings = load_settings()
    prompts = prompts_of(settings.llm)
    plan = Plan(
        feedback=feedback,
        tags=str(tags or settings.topics.tags),
        model=model.name,
        prompt=prompts.version,
        loss=loss,
        contents=SMOKE if smoke else contents,
        epochs=1 if smoke else epochs,
        batch=batch,
        rate=rate,
        rank=rank,
        alpha=2 * rank,
        tokens=tokens,
        seed=seed,
    )
    if tags is not None:
        taxonomy = {tag.id: tag for tag in files.all_of(tags, files.tag_of)}
    else:
        taxonomy = {}
        for tag_id, tag, _ in published.tags(settings):
            taxonomy.pop(tag_id, None)
            if tag is not None:
                taxonomy[tag_id] = tag
    train(decided(decisions(feedback, settings)), taxonomy, prompts, plan, model, to)


@dataclass(frozen=True, slots=True)
class Figures:
    """A model's quality on held-out examples: mean log loss of its confidence, and the area under the ROC curve."""

    log_loss: float
    auc: float
    examples: int


def train(items: list[Exemplar], tags: dict[str, Tag], prompts: Prompts, plan: Plan, model: Path, to: Path) -> None:
    """Train and write the adapter to `to`. Raises UserError if there is nothing to train on."""
    begin(to, plan)
    journal = Journal(to / JOURNAL)
    taken = asyncio.run(_diverse(split(items, "train"), plan))
    learnt = list(examples(taken, tags, prompts))
    kinds = {one.right for one in learnt}
    if kinds != {True, False}:
        raise UserError(
            f"{plan.feedback}: {len(learnt)} decisions on known tags and contents whose text is known; "
            "expected accepted ones and rejected ones"
        )
    held = list(examples(split(items, "val"), tags, prompts))[:MEASURED]
    trainable = load(model, plan.rank, plan.alpha, plan.seed)
    before = measured(trainable, held, plan)
    journal.write({"phase": "before", **_fields(before), "examples": len(learnt)})
    for step, (value, done) in enumerate(steps(trainable, learnt, plan, to), start=1):
        if step % 10 == 0:
            journal.write({"phase": "train", "loss": round(value, 5)}, pairs=done)
    after = measured(trainable, held, plan)
    journal.write({"phase": "after", **_fields(after), "examples": len(learnt)}, pairs=len(learnt) * plan.epochs)
    file = adapter.write(trainable.model, trainable.architecture, plan.alpha, to)
    (to / STEPS).unlink(missing_ok=True)
    if before is not None and after is not None:
        console.say(
            f"{after.examples} held-out decisions: log loss {before.log_loss:.4f} before, {after.log_loss:.4f} after; "
            f"AUC {before.auc:.3f} before, {after.auc:.3f} after"
        )
    console.say(f"{file}: {len(learnt)} decisions on {len(taken)} contents")


def steps(trainable: Trainable, learnt: Sequence[Example], plan: Plan, to: Path) -> Iterator[tuple[float, int]]:
    """Yield the loss of each step, and how many examples were seen. An interrupted run resumes after its last
    checkpoint."""
    model = trainable.model
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=plan.rate, weight_decay=0.0)
    order = [list(np.random.default_rng((plan.seed, epoch)).permutation(len(learnt))) for epoch in range(plan.epochs)]
    places = [place for epoch in order for place in epoch]
    first = _resumed(to, weights, optimizer)
    model.train()
    for start in range(first, len(places), plan.batch):
        some = [learnt[place] for place in places[start : start + plan.batch]]
        value = loss_of(trainable, some, plan)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        done = min(start + plan.batch, len(places))
        if (start // plan.batch) % 50 == 49:
            _checkpoint(to, weights, optimizer, done)
        yield float(value.detach()), done - first


def loss_of(trainable: Trainable, batch: Sequence[Example], plan: Plan) -> torch.Tensor:
    """The loss of the plan."""
    logits = trainable.logits(batch, plan.tokens)
    right = torch.tensor([one.right for one in batch], device=logits.device)
    yes, no = trainable.words
    answers = torch.where(right, yes, no)
    match plan.loss:
        case "answer":
            return answer_loss(logits, answers)
        case "confidence":
            return confidence_loss(logits, right, trainable.words)
        case "both":
            return answer_loss(logits, answers) + confidence_loss(logits, right, trainable.words)


@torch.no_grad()
def measured(trainable: Trainable, held: Sequence[Example], plan: Plan) -> Figures | None:
    """Return the figures of these examples; None if they are not of both kinds."""
    if len({one.right for one in held}) < 2:
        return None
    trainable.model.eval()
    parts = [
        confidence(trainable.logits(held[start : start + plan.batch], plan.tokens), trainable.words)
        for start in range(0, len(held), plan.batch)
    ]
    said = torch.cat(parts).double().cpu().numpy()
    right = np.array([one.right for one in held])
    losses = -np.log(np.clip(np.where(right, said, 1 - said), 1e-9, 1))
    # The share of correctly ordered pairs: Mann and Whitney's U.
    less = (said[~right][:, None] < said[right][None]).mean() + 0.5 * (
        said[~right][:, None] == said[right][None]
    ).mean()
    return Figures(float(losses.mean()), float(less), len(held))


async def _diverse(items: list[Exemplar], plan: Plan) -> list[Exemplar]:
    """The contents of the plan, in order."""
    if len(items) <= plan.contents:
        return items
    encoder = OnnxEncoder(default_folder())
    try:
        vectors = await encoder.encode([text_of(one) for one in items])
    finally:
        await encoder.close()
    return [items[place] for place in sorted(diverse(vectors, plan.contents, plan.seed))]


def _fields(figures: Figures | None) -> dict[str, float]:
    return {} if figures is None else {"log_loss": round(figures.log_loss, 5), "auc": round(figures.auc, 4)}


def _checkpoint(to: Path, weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, done: int) -> None:
    save_state(
        to / STEPS,
        {"weights": [one.detach() for one in weights], "optimizer": optimizer.state_dict(), "done": done},
    )


def _resumed(to: Path, weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Restore an earlier process's state; return how many examples it trained on."""
    if not (to / STEPS).exists():
        return 0
    kept = torch.load(to / STEPS, weights_only=True)
    with torch.no_grad():
        for one, before in zip(weights, kept["weights"], strict=True):
            one.copy_(before)
    optimizer.load_state_dict(kept["optimizer"])
    return int(kept["done"])
