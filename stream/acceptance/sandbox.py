"""The sandbox of an acceptance run: its topics, group and collections, created for it and removed afterwards."""

import asyncio
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tagbus.stream.acceptance.twin import TWIN, twin
from tagbus.stream.app import console
from tagbus.stream.app.places import folders
from tagbus.stream.config import PREFIX, Settings
from tagbus.stream.errors import TagbusError
from tagbus.stream.kafka import clients
from tagbus.stream.kafka.admin import topics
from tagbus.stream.kafka.admin.layout import Wanted, layout
from tagbus.stream.kafka.errors import error_of
from tagbus.stream.memory import open_memory
from tagbus.stream.memory.shared import shared_stores

NAME: Final = "tagbus-acceptance"
# Minimum number of partitions; otherwise two per worker.
PARTITIONS: Final = 4
SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.5
# Settings that name files or topics of the live installation.
LIVE: Final = ("MEMORY__PATH", "DRIFT__FILE", "RELEASES__FOLDER")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The resources of one run. `settings`: of the run; `variables`: the same as environment variables for its
    processes. The releases folder holds the release in force and its twin."""

    prefix: str
    settings: Settings
    variables: Mapping[str, str]
    release: str

    @classmethod
    def of(cls, settings: Settings, releases: Path, workers: int) -> "Sandbox":
        """A separate sandbox beside the installation of these settings, for this many workers."""
        prefix = f"{NAME}-{uuid.uuid4().hex[:8]}"
        named = [name for name, value in settings.topics if isinstance(value, str)]
        names = {name: f"{prefix}-{name.replace('_', '-')}" for name in named}
        partitions = max(PARTITIONS, 2 * workers)
        release = folders.base_release(settings).name
        twin(folders.release_folder(settings, release), releases)
        own = settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(update={"group": prefix, "transactional_id": prefix}),
                "topics": settings.topics.model_copy(update={**names, "partitions": partitions}),
                "memory": settings.memory.model_copy(update={"namespace": prefix, "path": None}),
                "releases": settings.releases.model_copy(update={"folder": releases}),
            }
        )
        live = {f"{PREFIX}{name}" for name in LIVE}
        given = {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
        variables = {
            **{name: value for name, value in given.items() if name.upper() not in live},
            f"{PREFIX}KAFKA__GROUP": prefix,
            f"{PREFIX}KAFKA__TRANSACTIONAL_ID": prefix,
            f"{PREFIX}TOPICS__PARTITIONS": str(partitions),
            **{f"{PREFIX}TOPICS__{name.upper()}": value for name, value in names.items()},
            f"{PREFIX}MEMORY__NAMESPACE": prefix,
            f"{PREFIX}RELEASES__FOLDER": str(releases),
        }
        return cls(prefix, own, variables, release)

    @contextmanager
    def made(self) -> Iterator[None]:
        """Create the topics; on exit remove them, the group and the collections, and report what is left."""
        admin = clients.admin(self.settings.kafka)
        try:
            topics.create(admin, self.settings.kafka, self._layout())
            yield
        finally:
            for words in self._removed():
                console.say(f"left: {words}")

    def _layout(self) -> Mapping[str, Wanted]:
        """The topics, including that of the budget that one of the checks sets."""
        limited = self.settings.budget.model_copy(update={"tokens_per_day": 1})
        return layout(self.settings.model_copy(update={"budget": limited}))

    def _removed(self) -> Iterator[str]:
        """Remove everything created. Yields what could not be removed."""
        admin = clients.admin(self.settings.kafka)
        for name, future in admin.delete_topics([*self._layout()], request_timeout=SECONDS).items():
            if words := _refused(future):
                yield f"topic {name}: {words}"
        if words := self._group_removed(admin):
            yield f"group {self.prefix}: {words}"
        if self.settings.memory.kind == "server":
            try:
                asyncio.run(self._drop())
            except TagbusError as error:
                yield f"collections {self.prefix}-*: {error}"

    def _group_removed(self, admin: AdminClient) -> str | None:
        """Delete the group once the sessions of its killed members have ended. Returns the error if that fails."""
        deadline = time.monotonic() + SECONDS
        while True:
            words = _refused(admin.delete_consumer_groups([self.prefix], request_timeout=SECONDS)[self.prefix])
            if words is None or time.monotonic() > deadline:
                return words
            time.sleep(POLL_SECONDS)

    async def _drop(self) -> None:
        release = folders.base_release(self.settings)
        for name in (release.name, TWIN):
            memory = await open_memory(self.settings.memory, name, release.dimension)
            try:
                for store in shared_stores(memory).values():
                    await store.drop()
            finally:
                await memory.close()


def _refused(future: "Future[None]") -> str | None:
    try:
        future.result()
    except KafkaException as error:
        return error_of(error).str()
    return None
