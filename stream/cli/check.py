"""`tagbus check`: one line for each precondition of `tagbus run`."""

import asyncio
import base64
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Literal

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tagbus.stream.app import assemble, folders
from tagbus.stream.app.components import Components
from tagbus.stream.cli.topics import layout
from tagbus.stream.config import KafkaSettings, RegistrySettings, Settings, load
from tagbus.stream.encoder.release import load_release
from tagbus.stream.errors import CheckFailed, TagbusError, shorten
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.access import why_locked_out
from tagbus.stream.kafka.errors import classify, error_of
from tagbus.stream.kafka.rights import REFUSED
from tagbus.stream.memory import open_memory

Configuration = dict[str, str]
Verdict = Literal["ok", "wrong", "unsure"]

SECONDS = 10.0
# Brokers expose these settings from 3.7 and 4.0 on; clients cannot query the version.
SINCE_3_7 = "group.consumer.session.timeout.ms"
SINCE_4_0 = "group.share.session.timeout.ms"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `unsure`: it could not be determined, which does not fail the command."""

    verdict: Verdict
    subject: str
    words: str


def check() -> None:
    """Check what must be right before `tagbus run`: a line each. Code 3 if anything is wrong."""
    wrong = 0
    for finding in findings(load()):
        typer.echo(f"{finding.verdict:<7} {finding.subject:<22} {finding.words}")
        wrong += finding.verdict == "wrong"
    if wrong:
        raise CheckFailed(f"{wrong} of these must be put right before `tagbus run`")


def findings(settings: Settings) -> Iterator[Finding]:
    """Run all checks in order."""
    yield _guarded("model", lambda: _model(settings))
    yield _guarded("memory", lambda: _memory(settings))
    if settings.registry.url is not None:
        yield _registry(settings.registry, settings.registry.url)
    admin = clients.admin(settings.kafka)
    try:
        cluster = admin.list_topics(timeout=SECONDS)
    except KafkaException as error:
        reason = why_locked_out(settings.kafka) or error_of(error).str()
        yield Finding("wrong", "broker", f"{settings.kafka.brokers}: {reason}")
        return
    yield Finding("ok", "broker", f"{settings.kafka.brokers}, {len(cluster.brokers)} brokers")
    there = {name: len(topic.partitions) for name, topic in cluster.topics.items()}
    wanted = layout(settings)
    broker = ConfigResource(ResourceType.BROKER, str(next(iter(cluster.brokers), 0)))
    topics = {name: ConfigResource(ResourceType.TOPIC, name) for name in wanted if there.get(name)}
    configurations = _configurations(admin, [broker, *topics.values()])
    yield _version(configurations.get(broker))
    for name, configuration in wanted.items():
        if name in topics:
            # A content's version is stored in the partition number that the content came from.
            least = there.get(settings.topics.content, 1) if name == settings.topics.versions else 1
            yield _topic(name, there[name], configurations.get(topics[name]), configuration["cleanup.policy"], least)
        else:
            # Optional: without them the release of encoder.folder is in force, and prompts have no knowledge.
            optional = {settings.topics.releases, settings.topics.knowledge}
            verdict: Verdict = "unsure" if name in optional else "wrong"
            yield Finding(verdict, f"topic {name}", _absent(settings.kafka, admin, name))


def _guarded(subject: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except TagbusError as error:
        return Finding("wrong", subject, str(error))


def _model(settings: Settings) -> Finding:
    release = load_release(folders.model_folder(settings))
    calibration = assemble.calibration_of(settings, release, Components.of(settings))
    return Finding(
        "ok", "model", f"release {release.name}, {release.dimension} dimensions, calibration {calibration.name}"
    )


def _memory(settings: Settings) -> Finding:
    release = load_release(folders.model_folder(settings))

    async def ask() -> tuple[int, int]:
        memory = await open_memory(settings.memory, release.name, release.dimension)
        try:
            return await memory.tags.count(), await memory.exemplars.count()
        finally:
            await memory.close()

    tags, exemplars = asyncio.run(ask())
    return Finding("ok", "memory", f"{settings.memory.kind}, {tags} tags and {exemplars} exemplars before it is built")


def _registry(registry: RegistrySettings, url: str) -> Finding:
    """Whether it answers a real request and accepts this user."""
    headers = {}
    if registry.user is not None and registry.password is not None:
        login = f"{registry.user}:{registry.password.get_secret_value()}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    if not url.startswith(("http://", "https://")):
        return Finding("wrong", "schema registry", f"TAGBUS_REGISTRY__URL={shorten(url)}: expected http:// or https://")
    try:
        question = urllib.request.Request(f"{url.rstrip('/')}/subjects", headers=headers)  # noqa: S310 - see above
        with urllib.request.urlopen(question, timeout=SECONDS):  # noqa: S310 - see above
            return Finding("ok", "schema registry", url)
    except (OSError, ValueError, HTTPException) as error:
        return Finding("wrong", "schema registry", f"{url}: {shorten(str(error), 200)}")


def _version(found: Configuration | None) -> Finding:
    if found is None:
        return Finding("unsure", "broker version", "its settings are not disclosed (DescribeConfigs); 3.7 is needed")
    if SINCE_4_0 in found:
        return Finding("ok", "broker version", "4.0 or newer")
    if SINCE_3_7 in found:
        return Finding("ok", "broker version", "3.7 or newer; the group protocol of KIP-848 needs 4.0")
    return Finding("wrong", "broker version", "older than 3.7, which is the oldest that tagbus is made for")


def _topic(name: str, partitions: int, found: Configuration | None, right: str, least: int) -> Finding:
    if partitions < least:
        return Finding(
            "wrong", f"topic {name}", f"{partitions} partitions, expected at least the {least} of the content"
        )
    if found is None:
        return Finding("unsure", f"topic {name}", f"{partitions} partitions; its cleanup.policy is not disclosed")
    policy = found.get("cleanup.policy", "")
    if policy != right:
        return Finding("wrong", f"topic {name}", f"cleanup.policy is {policy}, expected {right}")
    return Finding("ok", f"topic {name}", f"{partitions} partitions, cleanup.policy {policy}")


def _absent(kafka: KafkaSettings, admin: AdminClient, topic: str) -> str:
    """Why a topic is missing from the metadata: topics that a principal may not describe are omitted silently."""
    try:
        error = admin.list_topics(topic, SECONDS).topics[topic].error
    except KafkaException as exception:
        error = error_of(exception)
    refused = classify(error, kafka, topic, "Describe") if error and error.code() in REFUSED else None
    return str(refused or "does not exist; `tagbus topics create` creates it")


def _configurations(admin: AdminClient, resources: Sequence[ConfigResource]) -> dict[ConfigResource, Configuration]:
    """The settings of broker and topics; those that the cluster does not disclose are omitted.

    All are requested at once: a cluster that does not support the request lets each time out.
    """
    known = {}
    futures: dict[ConfigResource, Future[dict[str, object]]] = admin.describe_configs(
        list(resources), request_timeout=SECONDS
    )
    for resource, future in futures.items():
        with suppress(KafkaException, TimeoutError):
            entries = future.result(SECONDS)
            known[resource] = {name: str(getattr(entry, "value", "")) for name, entry in entries.items()}
    return known
