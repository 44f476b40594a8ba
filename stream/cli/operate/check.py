"""`tagbus check`: one line for each precondition of `tagbus run`."""

import asyncio
import base64
import socket
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Literal

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._metadata import BrokerMetadata
from confluent_kafka.admin._resource import ResourceType

from tagbus.stream.app import assemble
from tagbus.stream.app.components import Components
from tagbus.stream.app.console import printable
from tagbus.stream.app.places import folders
from tagbus.stream.config import PREFIX, KafkaSettings, RegistrySettings, Settings, load
from tagbus.stream.errors import CheckFailed, TagbusError, shorten
from tagbus.stream.index.shared import SharedMemory
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import LISTEN_SECONDS, why_locked_out
from tagbus.stream.kafka.admin import topics
from tagbus.stream.kafka.admin.availability import unavailable
from tagbus.stream.kafka.admin.internal_topics import not_served
from tagbus.stream.kafka.admin.layout import POLICY, Configuration, Difference, TopicState, differences, layout
from tagbus.stream.kafka.admin.open_transactions import held_back
from tagbus.stream.kafka.admin.timeouts import refused_timeouts
from tagbus.stream.kafka.errors import classify, error_of
from tagbus.stream.kafka.rights import REFUSED
from tagbus.stream.llm.spending.prices import price_in_words, unpriced
from tagbus.stream.memory import open_memory
from tagbus.stream.memory.shared import shared_stores
from tagbus.stream.telemetry.export import exporter

Verdict = Literal["ok", "wrong", "unsure"]

SECONDS = 10.0
# Brokers expose these settings from 3.7 and 4.0 on; clients cannot query the version.
SINCE_3_7 = "group.consumer.session.timeout.ms"
SINCE_4_0 = "group.share.session.timeout.ms"
# Which group protocols a broker serves.
PROTOCOLS = "group.coordinator.rebalance.protocols"
# The query of the trial search for web knowledge.
SEARCHED = "Apache Kafka"
# Characters of a finding at most: the longest of our own has some 800.
WORDS = 2_000
# Brokers named on one line.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `unsure`: it could not be determined; this does not fail the command."""

    verdict: Verdict
    subject: str
    words: str


def check() -> None:
    """Check the preconditions of `tagbus run`, one line each. Code 3 if anything is wrong."""
    wrong = 0
    for finding in findings(load()):
        typer.echo(line_of(finding))
        wrong += finding.verdict == "wrong"
    if wrong:
        raise CheckFailed(f"{wrong} of these must be fixed before `tagbus run`")


def line_of(finding: Finding) -> str:
    """The printed line of a finding. Its words may be a server's."""
    words = printable(" ".join(finding.words[: 2 * WORDS].split()))
    shown = words if len(words) <= WORDS else f"{words[: WORDS - 1]}…"
    return f"{finding.verdict:<7} {finding.subject:<22} {shown}"


def findings(settings: Settings) -> Iterator[Finding]:
    """Run all checks in order."""
    model = _guarded("model", lambda: _model(settings))
    yield model
    if model.verdict == "ok":
        yield _guarded("tagger", lambda: asyncio.run(_tagger(settings)))
    yield _guarded("memory", lambda: _memory(settings))
    if settings.memory.kind == "server":
        yield from _collections(settings)
    if settings.llm.url is not None:
        yield from _llm(settings)
    if settings.web.url is not None:
        yield _guarded("web knowledge", lambda: _web(settings))
    if settings.registry.url is not None:
        yield _registry(settings.registry, settings.registry.url)
    if settings.otel.endpoint is not None:
        yield _guarded("telemetry", lambda: _otel(settings))
    admin = clients.admin(settings.kafka)
    try:
        cluster = admin.list_topics(timeout=SECONDS)
    except KafkaException as error:
        reason = why_locked_out(settings.kafka) or error_of(error).str()
        yield Finding("wrong", "broker", f"{settings.kafka.brokers}: {reason}")
        return
    yield _brokers(settings.kafka, list(cluster.brokers.values()))
    broker = ConfigResource(ResourceType.BROKER, str(next(iter(cluster.brokers), 0)))
    configuration = topics.configurations(admin, cluster, [broker], SECONDS).get(broker)
    yield _version(settings.kafka, configuration)
    told = configuration or {}
    for words in (*not_served(settings.kafka, cluster, told), *refused_timeouts(settings.kafka, told)):
        yield Finding("wrong", "broker", words)
    own, wanted = settings.topics, layout(settings)
    found = topics.states(admin, cluster, wanted, SECONDS)
    for name in wanted:
        if name in found:
            closed = unavailable(cluster.topics[name], found[name].configuration)
            yield _topic(name, found[name], differences(settings, name, found), closed)
        else:
            # Optional: without them the release of encoder.folder is in force, prompts have no knowledge, and only
            # `tagbus feedback` does not start.
            optional = {own.releases, own.knowledge, own.feedback_state, own.feedback_dead_letters}
            verdict: Verdict = "unsure" if name in optional else "wrong"
            yield Finding(verdict, f"topic {name}", _absent(settings.kafka, admin, name))
    inputs = (own.content, own.tags, own.exemplars, own.knowledge, own.releases, own.feedback)
    for (name, number), offset in held_back(admin, cluster, inputs, SECONDS).items():
        words = (
            f"a transaction is open at offset {offset}: nothing after it is read (kafka-transactions.sh find-hanging)"
        )
        yield Finding("unsure", f"{name}:{number}", words)


def _guarded(subject: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except TagbusError as error:
        return Finding("wrong", subject, str(error))


def _model(settings: Settings) -> Finding:
    release = folders.base_release(settings)
    calibration = assemble.calibration_of(settings, release, Components.of(settings))
    return Finding(
        "ok", "model", f"release {release.name}, {release.dimension} dimensions, calibration {calibration.name}"
    )


async def _tagger(settings: Settings) -> Finding:
    """Open everything that tags except the memory: finds what is not installed, lacks a GPU or does not answer."""
    async with assemble.in_process(settings) as stack:
        stack.tagger()
        encoder = settings.encoder.kind + (f" at {settings.encoder.address}" * (settings.encoder.kind == "triton"))
        parts = ", ".join(f"{name} {version}" for name, version in stack.components.versions.items())
        return Finding("ok", "tagger", f"encoder {encoder}, components: {parts or 'none'}")


def _memory(settings: Settings) -> Finding:
    release = folders.base_release(settings)

    async def ask() -> Finding:
        memory = await open_memory(settings.memory, release.name, release.dimension)
        try:
            when = "before it is built"
            if settings.memory.kind == "server":
                view = SharedMemory(settings, [memory])
                await view.look()
                if problem := view.problem():
                    return Finding("wrong", "memory", problem)
                when = f"complete as of {view.age():.0f} s ago"
            found = f"{await memory.tags.count()} tags and {await memory.exemplars.count()} exemplars"
            return Finding("ok", "memory", f"{settings.memory.kind}, {found} {when}")
        finally:
            await memory.close()

    return asyncio.run(ask())


def _collections(settings: Settings) -> Iterator[Finding]:
    """The settings that differ from those the existing collections were made with, one line each."""
    release = folders.base_release(settings)

    async def ask() -> list[Finding]:
        memory = await open_memory(settings.memory, release.name, release.dimension)
        try:
            return [
                Finding("wrong", f"collection {kind}", f"{words}; `tagbus memory rebuild` rebuilds it")
                for kind, store in shared_stores(memory).items()
                for words in await store.differences()
            ]
        finally:
            await memory.close()

    # A server that does not answer is already reported.
    with suppress(TagbusError):
        yield from asyncio.run(ask())


def _llm(settings: Settings) -> Iterator[Finding]:
    """What the language model's server supports and what it silently ignores, one line each."""
    try:
        # The extra `llm` is installed if a judge is set.
        from tagbus.stream.llm.probe import examine

        for one in asyncio.run(examine(settings.llm, settings.retry, _fitted(settings))):
            yield Finding(one.verdict, f"llm {one.name}", one.words)
        yield _price(settings)
    except ImportError as error:
        yield Finding("wrong", "llm", f"{error}; pip install 'tagbus[llm]'")
    except TagbusError as error:
        yield Finding("wrong", "llm", str(error))


def _fitted(settings: Settings) -> str | None:
    """The judge's backend that the calibration of the settings is fitted to; None: none, or any."""
    try:
        calibration = assemble.calibration_of(settings, folders.base_release(settings), Components.of(settings))
    except TagbusError:
        # It is a finding of its own.
        return None
    return calibration.judge.backend if calibration.judge else None


def _web(settings: Settings) -> Finding:
    """Whether a search gives results that a prompt can use: workers continue without them and report it only in a
    metric."""
    if settings.llm.url is None:
        return Finding("unsure", "web knowledge", "TAGBUS_LLM__URL is not set, so no search is made")
    try:
        from tagbus.stream.llm.web.endpoint import Endpoint, Unusable
    except ImportError as error:
        return Finding("wrong", "web knowledge", f"{error}; pip install 'tagbus[llm]'")

    async def ask() -> Finding:
        endpoint = Endpoint(settings.web, settings.web.url or "")
        try:
            found = await endpoint.search(SEARCHED, settings.web.seconds)
            words = f"{endpoint.host} gives {len(found)} results for {SEARCHED!r}"
            return Finding("ok" if found else "wrong", "web knowledge", words)
        except Unusable as error:
            return Finding("wrong", "web knowledge", f"{endpoint.host}: {error}")
        finally:
            await endpoint.close()

    return asyncio.run(ask())


def _price(settings: Settings) -> Finding:
    """The language model's price; an unknown price is reported, never taken as zero."""
    url, model = settings.llm.url or "", settings.llm.model
    words = price_in_words(settings.budget, url, model)
    if words is not None:
        return Finding("ok", "llm price", words)
    limited = settings.budget.cost_per_minute is not None or settings.budget.cost_per_day is not None
    return Finding("wrong" if limited else "unsure", "llm price", f"costs are not counted: {unpriced(model)}")


def _registry(registry: RegistrySettings, url: str) -> Finding:
    """Whether the registry answers a real request and accepts this user."""
    headers = {}
    if registry.user is not None and registry.password is not None:
        login = f"{registry.user}:{registry.password.get_secret_value()}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    try:
        question = urllib.request.Request(f"{url}/subjects", headers=headers)  # noqa: S310 - http or https, as the setting is
        with urllib.request.urlopen(question, timeout=SECONDS):  # noqa: S310 - http or https, as the setting is
            return Finding("ok", "schema registry", url)
    except (OSError, ValueError, HTTPException) as error:
        return Finding("wrong", "schema registry", f"{url}: {shorten(str(error), 200)}")


def _otel(settings: Settings) -> Finding:
    """Whether spans and metrics can be exported. The collector is not asked: a worker runs without it."""
    exporter(settings)
    return Finding("ok", "telemetry", f"spans and metrics go to {settings.otel.endpoint}")


def _brokers(kafka: KafkaSettings, brokers: Sequence[BrokerMetadata]) -> Finding:
    """Whether each broker is reachable at its advertised address: kafka.brokers leads to one of them, and clients
    continue from there."""
    with ThreadPoolExecutor(max(1, min(16, len(brokers)))) as pool:
        lost = [words for words in pool.map(_unreachable, brokers) if words]
    if lost:
        more = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        return Finding("wrong", "broker", f"{kafka.brokers}: {'; '.join(lost[:NAMED])}{more}")
    return Finding("ok", "broker", f"{kafka.brokers}, {len(brokers)} brokers")


def _unreachable(broker: BrokerMetadata) -> str:
    try:
        socket.create_connection((broker.host, broker.port), LISTEN_SECONDS).close()
    except (OSError, UnicodeError) as error:
        where = shorten(f"{broker.host}:{broker.port}", 200)
        said = f"broker {broker.id} advertises {where} (advertised.listeners)"
        return f"{said}, which cannot be reached from here: {getattr(error, 'strerror', None) or error}"
    return ""


def _version(kafka: KafkaSettings, found: Configuration | None) -> Finding:
    new = kafka.group_protocol == "consumer"
    asked = f"{PREFIX}KAFKA__GROUP_PROTOCOL=consumer (KIP-848)"
    if found is None:
        needed = f"4.0 is needed for {asked}" if new else "3.7 is needed"
        return Finding("unsure", "broker version", f"its settings are not disclosed (DescribeConfigs); {needed}")
    if SINCE_3_7 not in found:
        return Finding("wrong", "broker version", "older than 3.7, the oldest version that tagbus supports")
    if new and SINCE_4_0 not in found:
        return Finding("wrong", "broker version", f"older than 4.0, which {asked} needs; expected classic")
    if new and "consumer" not in found.get(PROTOCOLS, "consumer"):
        return Finding("wrong", "broker version", f"{PROTOCOLS} is {found[PROTOCOLS]}, and {asked} needs consumer")
    if SINCE_4_0 in found:
        return Finding("ok", "broker version", "4.0 or newer")
    return Finding("ok", "broker version", "3.7 or newer; the group protocol of KIP-848 needs 4.0")


def _topic(name: str, state: TopicState, differs: Sequence[Difference], closed: Sequence[str]) -> Finding:
    """`closed`: why some of its partitions cannot be read or written now."""
    if harmful := [*(one.words for one in differs if one.harmful), *closed]:
        return Finding("wrong", f"topic {name}", "; ".join(harmful))
    if differs:
        return Finding("unsure", f"topic {name}", "; ".join(one.words for one in differs))
    if state.configuration is None:
        return Finding("unsure", f"topic {name}", f"{state.partitions} partitions; its {POLICY} is not disclosed")
    return Finding("ok", f"topic {name}", f"{state.partitions} partitions, {POLICY} {state.configuration[POLICY]}")


def _absent(kafka: KafkaSettings, admin: AdminClient, topic: str) -> str:
    """Why a topic is missing from the metadata: topics that a principal may not describe are omitted silently."""
    try:
        error = admin.list_topics(topic, SECONDS).topics[topic].error
    except KafkaException as exception:
        error = error_of(exception)
    refused = classify(error, kafka, topic, "Describe") if error and error.code() in REFUSED else None
    return str(refused or "does not exist; `tagbus topics create` creates it")
