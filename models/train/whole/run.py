"""A run: the models of a plan, trained on the same batches, evaluated, and kept at their best."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tagbus.models.data.corpus import Corpus
from tagbus.models.data.splits import Split
from tagbus.models.data.texts import tag_texts, text_of, tokenizer
from tagbus.models.data.truth import numbers_of
from tagbus.models.export.bert import Bert, require_tokens
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.train.allocator import freed_memory_kept
from tagbus.models.train.hidden import Row
from tagbus.models.train.losses import require_finite
from tagbus.models.train.plan import begin, require_same
from tagbus.models.train.saving import save_state
from tagbus.models.train.whole.evaluate import by_neighbours, by_tags
from tagbus.models.train.whole.losses import Seen, TeacherOutput, losses
from tagbus.models.train.whole.model import Trained, average, chosen, encode, follow, save
from tagbus.models.train.whole.plan import Plan
from tagbus.models.train.whole.rows import Batch, Ints, Rows, epoch
from tagbus.stream.app import console
from tagbus.stream.errors import UserError

STATE: Final = "state.pt"
TEACHER: Final = "teacher"
SAVE_STEPS: Final = 500
LOG_STEPS: Final = 100
# Share of the steps that warm up the learning rates.
WARM_UP: Final = 0.05
Weights = Mapping[str, Tensor]
# The figure that selects a model's best state.
GOAL: Final = "ndcg_at_5"


@dataclass(slots=True)
class Learner:
    """A model in training, its moving average, the last batches as keys, and its best evaluation so far."""

    name: str
    kept: Sequence[int]
    model: Trained
    mean: Trained
    queue: list[Seen] = field(default_factory=list)
    best: float = -1.0

    def state(self) -> dict[str, object]:
        """Return the state for `restore`."""
        queue = [(one.vectors, one.rows, one.tags) for one in self.queue]
        return {"model": self.model.state_dict(), "mean": self.mean.state_dict(), "queue": queue, "best": self.best}

    def restore(
        self, model: Weights, mean: Weights, queue: Sequence[tuple[Tensor, Tensor, Tensor]], best: float
    ) -> None:
        """Restore a state."""
        self.model.load_state_dict(model)
        self.mean.load_state_dict(mean)
        self.queue = [Seen(*one) for one in queue]
        self.best = best


@dataclass(frozen=True, slots=True)
class Texts:
    """The training data: contents, the text of each tag, held-out contents, and the ids of the tags."""

    contents: Rows
    names: Rows
    held: Rows
    ids: tuple[str, ...]

    @property
    def every(self) -> Rows:
        """Contents, then the tags' texts."""
        return self.contents + self.names


@freed_memory_kept()
def train(corpus: Corpus, plan: Plan, to: Path) -> None:
    """Train, and write each student's best moving average to a folder of `to`: layers-6, layers-3 and so on.

    A folder holds the encoder in Hugging Face's format, its tag vectors (`recall/tagvectors.py`) and metrics.jsonl. An
    interrupted run is resumed, with the result of an uninterrupted one. Raises UserError if `to` has a run of another
    plan.
    """
    require_tokens(Path(plan.base), plan.tokens)
    require_same(to, plan)
    texts = read(corpus, plan)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        # TF32 for everything outside bfloat16: the logits.
        torch.set_float32_matmul_precision("high")
    learners = begun(plan, texts, device)
    begin(to, plan)
    optimiser = optimiser_of(learners, plan)
    steps = steps_of(texts, plan)
    # Before the checkpoint is read: they lock the folder.
    journals = {one.name: Journal(to / one.name / JOURNAL) for one in learners if one.name != TEACHER}
    done = resume(to / STATE, learners, optimiser, device)
    if not done:
        evaluate(learners, texts, plan, to, journals, 0)
    every, marks = texts.every, {round(steps * number / plan.evaluations) for number in range(1, plan.evaluations + 1)}
    with console.bar("training", steps) as bar:
        for number, rows in enumerate(batches_of(texts, plan, steps), start=1):
            if number <= done:
                continue
            set_rates(optimiser, number, steps)
            found = step(learners, every.batch(rows, device), plan, optimiser, number)
            if number % LOG_STEPS == 0 or number in marks:
                # Reading a loss waits for the GPU.
                for losses_of in found.values():
                    require_finite(losses_of, number)
            if number % LOG_STEPS == 0 or number == steps:
                for name, journal in journals.items():
                    parts = {part: round(float(loss), 4) for part, loss in found[name].items()}
                    journal.write({"step": number, **parts}, contents=(number - done) * plan.batch)
            if number in marks:
                evaluate(learners, texts, plan, to, journals, number)
            if number % SAVE_STEPS == 0 or number == steps:
                keep(to / STATE, learners, optimiser, number)
            bar.to(number)


def read(corpus: Corpus, plan: Plan) -> Texts:
    """Tokenise the corpus. Raises UserError if there is nothing to train on."""
    tags = corpus.tags()
    numbers = {tag.id: number for number, tag in enumerate(tags)}
    reader = tokenizer(Path(plan.base), plan.tokens)

    def rows(split: Split) -> Iterator[Row]:
        for item in corpus.exemplars(split):
            if right := numbers_of(item, numbers):
                yield text_of(item), right

    def taken(what: str, some: Iterator[Row], count: int) -> Rows:
        with console.bar(f"reading {what}", count) as bar:
            return Rows.read(some, reader, bar.advance)

    contents, held = (taken(split, rows(split), sum(1 for _ in rows(split))) for split in ("train", "val"))
    if not len(contents):
        raise UserError(f"{plan.corpus} has no contents to train on")
    names = taken("tags", ((text, [number]) for number, text in enumerate(tag_texts(tags))), len(tags))
    return Texts(contents, names, held, tuple(tag.id for tag in tags))


def begun(plan: Plan, texts: Texts, device: torch.device) -> list[Learner]:
    """Return the models before the first step: the teacher first, if there is one."""
    torch.manual_seed(plan.seed)
    base, tags = Path(plan.base), len(texts.ids)
    bert = Bert(base)
    if wrong := [length for length in plan.dimensions if length >= bert.width]:
        raise UserError(f"--dimensions: {wrong[0]} is wrong, expected less than {bert.width}, which the encoder has")
    found = []
    for layers in plan.layers:
        kept = chosen(bert.layers, layers)
        student = Trained(base, kept, bert.width, tags).to(device)
        student.start(texts.names)
        found.append(learner(f"layers-{layers}", kept, student))
    if plan.teacher is None:
        return found
    whole = Trained(base, range(bert.layers), bert.width, 0).to(device)
    wide = Path(plan.teacher)
    if tokenizer(wide, plan.tokens).get_vocab() != tokenizer(base, plan.tokens).get_vocab():
        raise UserError(
            f"--teacher {wide}: its vocabulary is not that of {base}; name an encoder with the same tokenizer"
        )
    teacher = Trained(wide, range(Bert(wide).layers), bert.width, tags).to(device)
    teacher.start(texts.names, encode(whole.vectors, texts.names, device))
    return [learner(TEACHER, range(teacher.layers), teacher), *found]


def learner(name: str, kept: Sequence[int], model: Trained) -> Learner:
    """Return a model and its moving average, whose tag vectors are evaluated in float32, as they are exported."""
    mean = average(model)
    model.reduced = model.tags.device.type == "cpu"
    return Learner(name, kept, model, mean)


def optimiser_of(learners: Sequence[Learner], plan: Plan) -> torch.optim.Optimizer:
    """AdamW over all models; the tag vectors learn faster and do not decay."""
    groups = []
    for one in learners:
        layers = [weight for name, weight in one.model.named_parameters() if name != "tags"]
        rate = plan.teacher_rate if one.name == TEACHER else plan.rate
        groups.append({"params": layers, "lr": rate, "peak": rate, "weight_decay": 0.01})
        groups.append({"params": [one.model.tags], "lr": plan.tag_rate, "peak": plan.tag_rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups)


def steps_of(texts: Texts, plan: Plan) -> int:
    """The steps of the run."""
    return plan.steps or plan.epochs * len(epoch_of(texts, plan, 0))


def epoch_of(texts: Texts, plan: Plan, number: int) -> list[Ints]:
    """Return the batches of an epoch, determined by its number and the seed."""
    lengths = np.concatenate([texts.contents.lengths, texts.names.lengths])
    return epoch(lengths, len(texts.contents), plan.names, plan.batch, plan.seed * 1000 + number)


def batches_of(texts: Texts, plan: Plan, steps: int) -> Iterator[Ints]:
    """The batches of all steps."""
    given, number = 0, 0
    while given < steps:
        some = epoch_of(texts, plan, number)[: steps - given]
        yield from some
        given, number = given + len(some), number + 1


def set_rates(optimiser: torch.optim.Optimizer, number: int, steps: int) -> None:
    """Warm-up, then a cosine from the peak to a hundredth of it."""
    progress = number / steps
    share = min(1.0, progress / WARM_UP) * max(0.01, 0.5 * (1 + float(np.cos(np.pi * progress))))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


def step(
    learners: Sequence[Learner], batch: Batch, plan: Plan, optimiser: torch.optim.Optimizer, number: int
) -> dict[str, dict[str, Tensor]]:
    """A step of all models on a batch. Returns the losses by model, on the device: reading one waits for the GPU."""
    # Seeded by the step's number, so that a resumed run draws the same as an uninterrupted one.
    torch.manual_seed(plan.seed * 1_000_003 + number)
    taught = next((one for one in learners if one.name == TEACHER), None)
    # The teacher's moving average is used, on the whole text.
    teacher = None if taught is None else TeacherOutput.of(taught.mean, batch)
    thinned = batch.thinned(plan.word_dropout)
    optimiser.zero_grad(set_to_none=True)
    found: dict[str, dict[str, Tensor]] = {}
    for one in learners:
        parts, seen = losses(one.model, thinned, one.queue, None if one is taught else teacher, plan)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        layers = [weight for name, weight in one.model.named_parameters() if name != "tags"]
        torch.nn.utils.clip_grad_norm_(layers, 1.0)
        one.queue = [seen, *one.queue][: plan.queue]
        found[one.name] = {name: part.detach() for name, part in parts.items()}
    optimiser.step()
    for one in learners:
        # A recent average follows quickly.
        follow(one.mean, one.model, min(plan.ema, (1 + number) / (10 + number)))
    return found


def evaluate(
    learners: Sequence[Learner], texts: Texts, plan: Plan, to: Path, journals: dict[str, Journal], number: int
) -> None:
    """Evaluate the students' averages, and keep those that improved; all without validation contents."""
    for one in learners:
        if one.name == TEACHER:
            continue
        figures = by_tags(one.mean, texts.contents, texts.held)
        # On a CPU encoding all contents takes a quarter of the time of an epoch of training.
        if one.mean.tags.is_cuda or number == steps_of(texts, plan):
            figures |= by_neighbours(one.mean, texts.contents, texts.held)
        journals[one.name].write({"step": number, **figures})
        if (goal := figures.get(GOAL, float(number))) > one.best:
            one.best = goal
            save(one.mean, texts.ids, Path(plan.base), one.kept, to / one.name)


def keep(path: Path, learners: Sequence[Learner], optimiser: torch.optim.Optimizer, number: int) -> None:
    """Write state.pt."""
    state = {"step": number, "optimiser": optimiser.state_dict(), "learners": [one.state() for one in learners]}
    save_state(path, state)


def resume(path: Path, learners: Sequence[Learner], optimiser: torch.optim.Optimizer, device: torch.device) -> int:
    """Restore from state.pt. Returns its step, 0 without one."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    optimiser.load_state_dict(state["optimiser"])
    for one, kept in zip(learners, state["learners"], strict=True):
        one.restore(**kept)
    return int(state["step"])
