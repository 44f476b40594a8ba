"""`tagbus demo`: real descriptions through a real consumer, on one machine, with one command.

It starts a broker, a joiner and a worker (`tagbus feedback` and `tagbus run`, as a user would), publishes the example
tags, exemplars and contents, and shows the results. The mock cluster has no transactions: delivery is at least once;
with Apache Kafka, exactly once.
"""

import json
import signal
import sys
import time
from contextlib import ExitStack
from typing import Annotated, Literal

import typer

from tagbus.stream.app import console
from tagbus.stream.cli.create import create_all
from tagbus.stream.cli.demo import judge
from tagbus.stream.cli.demo.judge import DemoJudge
from tagbus.stream.cli.demo.scenes import Demo
from tagbus.stream.cli.demo.whole import Whole
from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.errors import UserError
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.mock import MockCluster

Kind = Literal["mock", "apache"]
EncoderKind = Literal["in_process", "triton"]
LlmKind = Literal["none", "decider", "local"]
PARTITIONS = 4


def demo(
    kafka: Annotated[Kind, typer.Option("--kafka", help="mock: at least once; apache: exactly once, needs Java")] = (
        "mock"
    ),
    encoder: Annotated[
        EncoderKind, typer.Option("--encoder", help="triton: a real tritonserver, installed the first time (374 MB)")
    ] = "in_process",
    llm: Annotated[
        LlmKind,
        typer.Option(
            "--llm", help="decider: a judge of 3 MB; local: a minute of llama.cpp with SmolLM2; none: no judge"
        ),
    ] = "none",
    whole: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option(
            "--all",
            help="everything: Apache Kafka, tritonserver, a memory written by `tagbus index`, a judge, views and both "
            "example recommenders",
        ),
    ] = False,
) -> None:
    """Tag 600 descriptions of software from Kafka to Kafka, all on this machine. Ends with a line of JSON."""
    if whole:
        kafka, encoder, llm = "apache", "triton", "decider" if llm == "none" else llm
    started = time.monotonic()
    # The default handler would end only this process and leave the worker running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with ExitStack() as stack:
        asked = None if llm == "none" else judge.started(llm, stack)
        settings = _broker(kafka, asked, stack).model_copy(update={"encoder": _encoder(encoder, stack)})
        report = Demo(settings, stack, asked, Whole(settings, stack) if whole else None).run()
    seconds = round(time.monotonic() - started, 1)
    typer.echo(json.dumps({**report, "seconds": seconds, "delivery": _delivery(kafka), "encoder": encoder}))


def _delivery(kafka: Kind) -> Literal["exactly_once", "at_least_once"]:
    return "exactly_once" if kafka == "apache" else "at_least_once"


def _broker(kafka: Kind, asked: DemoJudge | None, stack: ExitStack) -> Settings:
    """Start the broker, create the topics, and print its delivery guarantee."""
    if kafka == "apache":
        console.say("starting Apache Kafka (downloaded from Maven Central the first time); delivery: exactly once")
        settings = _settings(stack.enter_context(ApacheKafka()).address, kafka, asked)
        create_all(settings)
        return settings
    cluster = stack.enter_context(MockCluster())
    console.say("started librdkafka's mock cluster in this process; it has no transactions, so delivery: at least once")
    settings = _settings(cluster.address, kafka, asked)
    names = settings.topics
    for name in (
        *(names.content, names.tags, names.exemplars, names.tagged, names.dead_letters, names.versions),
        *(names.feedback, names.feedback_state, names.feedback_dead_letters, names.budget),
    ):
        cluster.topic(name, PARTITIONS)
    return settings


def _encoder(kind: EncoderKind, stack: ExitStack) -> EncoderSettings:
    """Start the server if needed, and return the worker's encoder settings."""
    if kind == "in_process":
        return EncoderSettings()
    try:
        from tagbus.stream.local.triton import TritonServer
    except ImportError as error:
        raise UserError(f"--encoder triton needs tritonclient ({error}): pip install 'tagbus[triton]'") from None
    console.say("starting tritonserver (the first time its environment is installed: 374 MB)")
    return EncoderSettings(kind="triton", address=stack.enter_context(TritonServer()).address)


def _settings(address: str, kafka: Kind, asked: DemoJudge | None) -> Settings:
    base = Settings.model_construct()
    return Settings.model_construct(
        kafka=base.kafka.model_copy(update={"brokers": address, "delivery": _delivery(kafka), "instance": "demo"}),
        topics=base.topics.model_copy(update={"partitions": PARTITIONS}),
        llm=base.llm if asked is None else asked.llm,
        budget=base.budget if asked is None else asked.budget,
    )
