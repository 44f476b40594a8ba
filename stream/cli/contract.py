"""`tagbus asyncapi`, `schema`, `config` and `validate`: print the contract and settings, and validate files against
them."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagbus.stream.app import console
from tagbus.stream.app.components import effective
from tagbus.stream.app.places import files
from tagbus.stream.config import load
from tagbus.stream.contract import asyncapi as documents
from tagbus.stream.contract.advice import Advice
from tagbus.stream.contract.codec import Keyed, encode_record
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.contract.schema import MODELS, json_schema
from tagbus.stream.errors import CheckFailed, Poison
from tagbus.stream.feedback.published import Publishing
from tagbus.stream.kafka.limits import expected_limit

Word = Literal["content", "tags", "exemplars", "knowledge", "feedback"]


def asyncapi() -> None:
    """Print the AsyncAPI 3 document of the topics, made from the models."""
    typer.echo(json.dumps(documents.asyncapi(load().topics), indent=2, ensure_ascii=False))


def schema(
    topic: Annotated[
        str, typer.Argument(help="content, tags, exemplars, knowledge, tagged, feedback, content.dlq or releases")
    ],
) -> None:
    """Print the JSON Schema of a topic's values."""
    typer.echo(json.dumps(json_schema(topic), indent=2, ensure_ascii=False))


def config() -> None:
    """Print the effective settings, secrets masked, as JSON. TAGBUS_KAFKA__BROKERS sets kafka.brokers."""
    typer.echo(effective(load()).model_dump_json(indent=2, by_alias=True))


def validate(
    file: Annotated[Path, typer.Argument(help="a JSON object a line; - is standard input")],
    of: Annotated[Word, typer.Option("--as", help="what the lines are")] = "content",
) -> None:
    """Check every line of FILE: print line and field of every error, then the counts. Code 3 if any line is wrong.

    A record that `tagbus publish` refuses is wrong as well, for instance one that is too large for a topic of `tagbus
    topics create`. Warnings are about lines that are right: unknown fields, a repeated id, an exemplar without
    decisions, parents that form a cycle.
    """
    limit = expected_limit(load())
    advice = Advice(of, MODELS[of])
    run = Publishing()
    right = wrong = 0
    for line in files.read_lines(file):
        try:
            event = files.READERS[of](line)
            limit.check(encode_record(_as_published(event, run)))
            advice.look(line.place, line.value, event)
            right += 1
        except Poison as error:
            wrong += 1
            for field_error in error.errors:
                typer.echo(f"{line.place}: {field_error}")
    if right or not wrong:
        for warning in advice.lines(str(file)):
            console.say(f"warning: {warning}")
    console.say(f"{right} right, {wrong} wrong")
    if wrong:
        raise CheckFailed(console.wrong_lines(wrong))


def _as_published(event: Keyed, run: Publishing) -> Keyed:
    """What `tagbus publish` sends: exemplars of people go as decisions. Raises Poison for one that makes none."""
    return run.decision(event) if isinstance(event, Exemplar) and event.source == "people" else event
