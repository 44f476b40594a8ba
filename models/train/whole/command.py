"""`tagbus train whole`: trains every layer of an encoder, and smaller encoders cut from it, against all tags.

    tagbus train whole CORPUS --out runs/a --layers 6,3              two students of MiniLM, on a GPU
    tagbus train whole CORPUS --out runs/a --teacher bge-base        trains a wider encoder beside them as their teacher
    tagbus train whole CORPUS --out try --steps 40 --most 2000       forty steps, a trial run on a machine
    tagbus export --model runs/a/layers-6 --out releases/a/1 --precision int8 --name a-1

The losses: decoupled softmax over all tags as free vectors, initialised to the vectors of their texts, and a
contrastive loss between contents that share a tag, to keep neighbours good. A moving average of the weights is kept.
All students see the same batches.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from tagbus.models.data.corpus import select
from tagbus.models.export.bert import weights_folder
from tagbus.models.train.whole.plan import Plan
from tagbus.models.train.whole.run import train
from tagbus.stream.errors import UserError, shorten

DEFAULT: Final = Plan(corpus="", base="")


def command(
    place: Annotated[str, typer.Argument(help="the corpus: a folder, or `topics`; see docs/training.md")],
    to: Annotated[Path, typer.Option("--out", help="folder of the run; a run in it is resumed")],
    layers: Annotated[str, typer.Option(help="layers of each student, cut evenly from the base's")] = "6,3",
    base: Annotated[Path | None, typer.Option(help="BERT encoder to cut from; MiniLM if unset")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="wider BERT encoder with the tokenizer of --base; a teacher")
    ] = None,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="train on this many contents only")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the contents")] = DEFAULT.epochs,
    steps: Annotated[int | None, typer.Option(min=1, help="steps in all, instead of epochs")] = None,
    batch: Annotated[int, typer.Option(min=2, help="texts per step")] = DEFAULT.batch,
    tokens: Annotated[int, typer.Option(min=3, help="tokens per text in training")] = DEFAULT.tokens,
    rate: Annotated[float, typer.Option(help="peak learning rate of a student")] = DEFAULT.rate,
    tag_rate: Annotated[float, typer.Option(help="peak learning rate of the tag vectors")] = DEFAULT.tag_rate,
    names: Annotated[int, typer.Option(min=0, help="times a tag's text is a content in an epoch")] = DEFAULT.names,
    word_dropout: Annotated[
        float, typer.Option(min=0, max=0.9, help="share of tokens left out")
    ] = DEFAULT.word_dropout,
    vector_dropout: Annotated[
        float, typer.Option(min=0, max=0.9, help="of the vector before it meets the tags")
    ] = DEFAULT.vector_dropout,
    contrastive: Annotated[float, typer.Option(min=0, help="weight of the loss between contents")] = (
        DEFAULT.contrastive
    ),
    dimensions: Annotated[str, typer.Option(help="shorter vectors to train too, as 192,128 (Matryoshka)")] = "",
    evaluations: Annotated[int, typer.Option(min=1, help="of the run; the best is kept")] = DEFAULT.evaluations,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
) -> None:
    """Train encoders of all layers on the contents of PLACE. The same command resumes an interrupted run."""
    corpus, name = select(place, left_out, most)
    plan = Plan(
        corpus=name,
        base=str(base or weights_folder()),
        teacher=None if teacher is None else str(teacher),
        layers=numbers("--layers", layers),
        tokens=tokens,
        epochs=epochs,
        steps=steps,
        batch=batch,
        rate=rate,
        tag_rate=tag_rate,
        names=names,
        word_dropout=word_dropout,
        vector_dropout=vector_dropout,
        contrastive=contrastive,
        dimensions=numbers("--dimensions", dimensions) if dimensions else (),
        evaluations=evaluations,
        seed=seed,
    )
    train(corpus, plan, to)


def numbers(option: str, given: str) -> tuple[int, ...]:
    """Parse distinct positive numbers separated by commas. Raises UserError."""
    try:
        found = tuple(int(one) for one in given.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise UserError(f"{option}: {shorten(given)} is wrong, expected different numbers with commas, as 6,3")
    return found
