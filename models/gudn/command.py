"""`tagbus train gudn`: BERT fine-tuned for a classifier over all known tags, guided by the names of the tags.

tagbus train gudn CORPUS --out gudn                                  the paper's variant
tagbus train gudn CORPUS --out gudn --variant code --labels raw      that of its public code
tagbus train gudn CORPUS --out gudn --feature 0 --link 0             BERT alone, to compare with
tagbus train gudn CORPUS --out try --steps 20 --most 500             tries a machine out
"""

from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from tagbus.models.data.corpus import select
from tagbus.models.export.bert import weights_folder
from tagbus.models.gudn.export import BEST, export
from tagbus.models.gudn.plan import Labels, Plan, Precision, Variant
from tagbus.models.gudn.run import train
from tagbus.stream.app import console
from tagbus.stream.errors import UserError

DEFAULT: Final = Plan(corpus="", base="")


def command(
    place: Annotated[str, typer.Argument(help="the corpus: a folder, or `topics`; see docs/training.md")],
    to: Annotated[Path, typer.Option("--out", help="folder of the run and of what it exports; a run in it is resumed")],
    base: Annotated[Path | None, typer.Option(help="BERT encoder to start from; MiniLM if unset")] = None,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    most: Annotated[int | None, typer.Option(min=1, help="train on this many contents only")] = None,
    variant: Annotated[Variant, typer.Option(help="the paper's, or its public code's")] = DEFAULT.variant,
    labels: Annotated[
        Labels, typer.Option(help="names once, repeated in order or in random order; a vector a tag")
    ] = DEFAULT.labels,
    text_layers: Annotated[
        int, typer.Option(min=0, help="last layers read of a text; 0: the variant's of a BERT of six")
    ] = DEFAULT.text_layers,
    label_layers: Annotated[int, typer.Option(min=0, help="the same of its labels")] = DEFAULT.label_layers,
    feature: Annotated[float, typer.Option(min=0, help="weight of the feature loss; 0: off")] = DEFAULT.feature,
    link: Annotated[float, typer.Option(min=0, help="weight of the link loss; 0: off")] = DEFAULT.link,
    tokens: Annotated[int, typer.Option(min=3, max=512, help="tokens per text, and of its labels")] = DEFAULT.tokens,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the contents")] = DEFAULT.epochs,
    steps: Annotated[int | None, typer.Option(min=1, help="steps in all, instead of epochs")] = None,
    batch: Annotated[int, typer.Option(min=1, help="contents per step")] = DEFAULT.batch,
    rate: Annotated[float, typer.Option(help="first learning rate of BERT")] = DEFAULT.rate,
    head_rate: Annotated[float, typer.Option(help="first learning rate of the classifiers")] = DEFAULT.head_rate,
    precision: Annotated[
        Precision, typer.Option(help="of products in training; bfloat16 is faster on a CPU with AVX512-BF16")
    ] = DEFAULT.precision,
    negatives: Annotated[
        int, typer.Option(min=0, help="wrong tags per content that a step scores, the likeliest; 0: all")
    ] = DEFAULT.negatives,
    best: Annotated[int, typer.Option(min=1, max=1000, help="tags returned per content")] = BEST,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
) -> None:
    """Train a guided classifier on the contents of PLACE and export it. The same command resumes an interrupted run."""
    corpus, name = select(place, left_out, most)
    given = {
        "corpus": name,
        "base": str(base or weights_folder()),
        "variant": variant,
        "labels": labels,
        "text_layers": text_layers,
        "label_layers": label_layers,
        "feature": feature,
        "link": link,
        "tokens": tokens,
        "epochs": epochs,
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "head_rate": head_rate,
        "precision": precision,
        "negatives": negatives,
        "seed": seed,
    }
    try:
        plan = Plan.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = "--" + str((problem["loc"] or ("label-layers",))[0]).replace("_", "-")
        raise UserError(f"{option}: {problem['msg']}") from None
    network, texts = train(corpus, plan, to)
    manifest = export(network, texts, best, to)
    console.print_line(f"{to}: {manifest.name}, {len(manifest.tags)} tags, trained on {manifest.fitted_on} contents")
