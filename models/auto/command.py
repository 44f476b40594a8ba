"""`tagbus train auto`: choose what fits a corpus and a time, train it, and leave a release.

    tagbus train auto examples --minutes 10 --out releases/auto-1
    TAGBUS_RELEASES__FOLDER=releases tagbus release build auto-1, then release check, release activate
    tagbus train auto topics --since 14d --minutes 60 --out releases/auto-2 --activate

The choice is explained before anything is trained: by the size of the corpus and the speed of this machine. What was
trained becomes part of the release by what it gains on validation contents.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tagbus.models.auto import production
from tagbus.models.auto.production import Rollout
from tagbus.models.auto.run import Asked, Report, Run
from tagbus.models.data.corpus import TOPICS, open_corpus
from tagbus.stream.app import console
from tagbus.stream.app.releases.behaviour import FEWEST, Limits
from tagbus.stream.app.time_arguments import moment
from tagbus.stream.errors import UserError, shorten

LIMITS = Limits()


def command(
    place: Annotated[str, typer.Argument(help="the corpus: a folder, or `topics`; see docs/training.md")],
    to: Annotated[Path, typer.Option("--out", help="folder of the release, which has the folder's name")],
    minutes: Annotated[float, typer.Option(min=1, help="time to train for, on one core")] = 30.0,
    gpu: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--gpu", help="train the encoder whole, on a CUDA device")
    ] = False,
    single: Annotated[  # noqa: FBT002
        bool, typer.Option("--single", help="one tag or none a content: choose by P@1, and find the cut")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="with `topics`: the release in force was trained on nothing newer; compare with it"),
    ] = None,
    shadow: Annotated[int, typer.Option(min=FEWEST, help="with --since: newest contents that it tags in shadow")] = 500,
    activate: Annotated[  # noqa: FBT002
        bool, typer.Option("--activate", help="with --since: put it in force, watch it, and take it back if need be")
    ] = False,
    watched: Annotated[int, typer.Option("--watch", min=FEWEST, help="contents that it is watched for")] = 1_000,
    watch_minutes: Annotated[float, typer.Option(min=0.1, help="time that it is watched for at most")] = 60.0,
    dead_letters: Annotated[
        float, typer.Option(min=0, max=1, help="share of dead letters from which it is taken back")
    ] = LIMITS.dead_letters,
    abstention: Annotated[
        float, typer.Option(min=0, max=1, help="share of contents without a tag, above that in shadow")
    ] = LIMITS.abstention,
    drift: Annotated[
        float, typer.Option(min=0, help="population stability index of its confidences against those in shadow")
    ] = LIMITS.drift,
) -> None:
    """Choose and train what fits the contents of PLACE and the time. The same command resumes an interrupted run."""
    asked = Asked(corpus=place, minutes=minutes, gpu=gpu, single=single, since=since)
    if (began := moment("--since", since)) is not None:
        if place != TOPICS:
            raise UserError(
                f"--since needs the corpus `{TOPICS}`, which knows when people decided; not {shorten(place)}"
            )
        limits = Limits(dead_letters, abstention, drift)
        rollout = Rollout(shadow, watched if activate else None, watch_minutes, limits)
        production.train(Run(to, asked, began), began, rollout)
        return
    if activate:
        raise UserError(
            "--activate needs --since: only what was compared with the release in force goes live by itself"
        )
    run = Run(to, asked)
    report = run.train(partial(open_corpus, place))
    run.release()
    say(to, report)


def say(to: Path, report: Report) -> None:
    """Where the release is, and what workers need for it."""
    console.print_line(f"{to}: release {to.name}; TAGBUS_RELEASES__FOLDER={to.parent} tagbus release build {to.name}")
    if report.selection.parts:
        console.say("workers need TAGBUS_COMPONENTS__LITERAL__ENABLED=true for it: the ranker reads literal names")
    if (cut := report.verdict.cut) is not None:
        console.say(f"one tag or none: TAGBUS_TAGGER__TAGS=1 TAGBUS_TAGGER__LEAST_CONFIDENCE={cut:g}")
    elif report.plan.asked.single:
        console.say("one tag or none: there are no validation contents, so from which confidence on is not known")
