"""A run: what is read, the steps, the evaluation after each epoch, and the epoch that is kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tagbus.models.data.corpus import Corpus
from tagbus.models.data.splits import Split
from tagbus.models.data.texts import text_of, tokenizer
from tagbus.models.gudn.network import Contents, GuideNetwork
from tagbus.models.gudn.plan import Plan
from tagbus.models.gudn.reinforce import Names
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train.allocator import freed_memory_kept
from tagbus.models.train.hidden import Row
from tagbus.models.train.losses import require_finite
from tagbus.models.train.plan import begin, require_same
from tagbus.models.train.saving import save_state
from tagbus.models.train.top_layers import K, batches
from tagbus.models.train.whole.evaluate import figures
from tagbus.models.train.whole.rows import Ints, Rows
from tagbus.stream.app import console
from tagbus.stream.errors import UserError
from tagbus.stream.quality import Ranked

STATE: Final = "state.pt"
# The weights of the best epoch by GOAL on the validation contents.
BEST: Final = "best.pt"
GOAL: Final = "ndcg_at_5"
SAVE_STEPS: Final = 500
LOG_STEPS: Final = 50
# Contents scored at once.
SCORED: Final = 256


@dataclass(frozen=True, slots=True)
class Texts:
    """What is trained on: contents, held-out contents, the ids of the known tags, and the tokens of their names."""

    contents: Rows
    held: Rows
    ids: tuple[str, ...]
    names: Names


@dataclass(slots=True)
class Learner:
    """A network, its optimiser, the steps that it has taken, and the best evaluation so far."""

    network: GuideNetwork
    optimiser: torch.optim.Optimizer
    device: torch.device
    done: int = 0
    best: float = -1.0


@freed_memory_kept()
def train(corpus: Corpus, plan: Plan, to: Path) -> tuple[GuideNetwork, Texts]:
    """Train, and return the network of the best epoch, which `to` holds as best.pt beside state.pt and metrics.jsonl.

    An interrupted run is resumed and ends as one that was not. Without validation contents the last epoch is the best.
    Raises UserError if there is nothing to train on, or `to` holds a run of another plan.
    """
    require_same(to, plan)
    texts = read(corpus, plan)
    learner = begun(plan, texts)
    begin(to, plan)
    # Before the checkpoint is read: it locks the folder.
    journal = Journal(to / JOURNAL)
    resume(to / STATE, learner)
    first, steps = learner.done, steps_of(texts, plan)
    with console.bar("training", steps) as bar:
        for number, (rows, last) in enumerate(batches_of(texts, plan, steps), start=1):
            if number <= learner.done:
                continue
            found = step(learner, texts, rows, plan, steps)
            if number % LOG_STEPS == 0 or last or number == steps:
                require_finite(found, number)
            if number % LOG_STEPS == 0 or number == steps:
                losses = {name: round(float(loss), 4) for name, loss in found.items()}
                journal.write({"step": number, **losses}, contents=(number - first) * plan.batch)
            if last or number == steps:
                evaluate(learner, texts, to, journal)
            if number % SAVE_STEPS == 0 or last or number == steps:
                keep(to / STATE, learner)
            bar.to(number)
    learner.network.load_state_dict(torch.load(to / BEST, map_location=learner.device, weights_only=True))
    return learner.network.eval(), texts


def read(corpus: Corpus, plan: Plan) -> Texts:
    """Tokenise the contents that carry a tag and the names of the tags that a training content carries: the set is
    closed. Raises UserError if there is nothing to train on."""
    carried = {tag for item in corpus.exemplars("train") for tag in item.accepted}
    tags = [tag for tag in corpus.tags() if tag.id in carried]
    if not tags:
        raise UserError(f"{plan.corpus} has no contents to train on")
    ids = tuple(tag.id for tag in tags)
    names = Names.read([tag.name for tag in tags], tokenizer(Path(plan.base), plan.tokens))
    return Texts(rows_of(corpus, "train", plan, ids), rows_of(corpus, "val", plan, ids), ids, names)


def rows_of(corpus: Corpus, split: Split, plan: Plan, ids: Sequence[str]) -> Rows:
    """The contents of a split that carry one of these tags, tokenised, with the tags by number."""
    numbers = {tag: number for number, tag in enumerate(ids)}

    def rows() -> Iterator[Row]:
        for item in corpus.exemplars(split):
            if right := [numbers[tag] for tag in item.accepted if tag in numbers]:
                yield text_of(item), right

    with console.bar(f"reading {split}", sum(1 for _ in rows())) as bar:
        return Rows.read(rows(), tokenizer(Path(plan.base), plan.tokens), bar.advance)


def begun(plan: Plan, texts: Texts) -> Learner:
    """The network before the first step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(plan.seed)
    network = GuideNetwork(Path(plan.base), plan, len(texts.ids)).to(device)
    heads = network.heads_of_tags()
    own = {id(weight) for weight in heads}
    bert = [weight for weight in network.parameters() if id(weight) not in own]
    groups = [{"params": bert, "lr": plan.rate, "first": plan.rate}]
    groups.append({"params": heads, "lr": plan.head_rate, "first": plan.head_rate})
    return Learner(network, torch.optim.AdamW(groups, weight_decay=0.01, fused=True), device)


def steps_of(texts: Texts, plan: Plan) -> int:
    """The steps of the run."""
    return plan.steps or plan.epochs * len(epoch_of(texts, plan, 0))


def epoch_of(texts: Texts, plan: Plan, number: int) -> list[Ints]:
    """The batches of an epoch, which its number and the seed decide."""
    return batches(texts.contents.lengths, plan.batch, plan.seed * 1000 + number)


def batches_of(texts: Texts, plan: Plan, steps: int) -> Iterator[tuple[Ints, bool]]:
    """The batches of all steps, and whether each is the last of its epoch."""
    given, number = 0, 0
    while given < steps:
        whole = epoch_of(texts, plan, number)
        some = whole[: steps - given]
        yield from ((rows, place == len(whole)) for place, rows in enumerate(some, start=1))
        given, number = given + len(some), number + 1


def step(learner: Learner, texts: Texts, rows: Ints, plan: Plan, steps: int) -> dict[str, Tensor]:
    """A step on these contents. Returns its losses. Randomness depends on seed and step alone, so that a resumed run
    draws what an uninterrupted one draws."""
    seed = plan.seed * 1_000_003 + learner.done
    torch.manual_seed(seed)
    for group in learner.optimiser.param_groups:
        group["lr"] = group["first"] * (1 - learner.done / steps)
    learner.network.train()
    learner.optimiser.zero_grad(set_to_none=True)
    parts = learner.network.losses(contents_of(texts, rows, plan, np.random.default_rng(seed), learner.device))
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(learner.network.parameters(), 1.0)
    learner.optimiser.step()
    learner.done += 1
    return {name: part.detach() for name, part in parts.items()}


def contents_of(texts: Texts, rows: Ints, plan: Plan, random: np.random.Generator, device: torch.device) -> Contents:
    """A batch with its labels, where the plan reads them."""
    batch = texts.contents.batch(rows, device)
    if not plan.guided or plan.labels == "multi-hot":
        return Contents(batch.ids, batch.mask, batch.rows, batch.tags, None, None)
    right: Sequence[Sequence[int]] = [texts.contents.truth[row].tolist() for row in rows.tolist()]
    ids, mask = texts.names.batch(right, plan.labels, plan.tokens, random)
    return Contents(batch.ids, batch.mask, batch.rows, batch.tags, ids.to(device), mask.to(device))


def evaluate(learner: Learner, texts: Texts, to: Path, journal: Journal) -> None:
    """Evaluate on the validation contents, and keep the weights if they are better than before."""
    found = {}
    if len(texts.held):
        found = figures(ranked(learner.network, texts.held), texts.contents, texts.held, len(texts.ids))
    journal.write({"step": learner.done, **found})
    if (goal := found.get(GOAL, float(learner.done))) > learner.best:
        learner.best = goal
        save_state(to / BEST, learner.network.state_dict())


@torch.inference_mode()
def ranked(network: GuideNetwork, texts: Rows) -> Ranked:
    """The ten best tags of each text, by the text alone."""
    network.eval()
    device = network.classifier.weight.device
    most = min(K, network.classifier.out_features)
    indices, scores = np.full((len(texts), K), -1, np.int64), np.zeros((len(texts), K))
    for rows in batches(texts.lengths, SCORED, 0):
        batch = texts.batch(rows, device)
        best = network.logits(batch.ids, batch.mask).topk(most, dim=1)
        indices[rows, :most] = best.indices.cpu().numpy()
        # Only their order counts: confidences are fitted later.
        scores[rows, :most] = best.values.sigmoid().cpu().numpy()
    return Ranked(indices, scores)


def keep(path: Path, learner: Learner) -> None:
    """Write state.pt."""
    network, optimiser = learner.network.state_dict(), learner.optimiser.state_dict()
    save_state(path, {"step": learner.done, "best": learner.best, "network": network, "optimiser": optimiser})


def resume(path: Path, learner: Learner) -> None:
    """Restore from state.pt, if there is one."""
    if not path.exists():
        return
    state = torch.load(path, map_location=learner.device, weights_only=True)
    learner.network.load_state_dict(state["network"])
    learner.optimiser.load_state_dict(state["optimiser"])
    learner.done, learner.best = int(state["step"]), float(state["best"])
