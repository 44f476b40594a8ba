"""The judge as a component: its name and its version in results, paths and calibrations.

Its settings are the section `llm`, not one of `components`: its questions go to a server that is not ours.
"""

import hashlib
import json
from typing import Final

from tagbus.stream.config import Settings
from tagbus.stream.memory.kinds import KNOWLEDGE
from tagbus.stream.recall.component import (
    Component,
    ComponentOf,
    ComponentSettings,
    Configured,
    Part,
    Surroundings,
)

NAME: Final = "judge"
# The settings that change an answer. The address does not, if the model is named.
_ASKED: Final = (
    *("model", "profile", "backend", "adapter", "label_mass", "candidates", "exemplars"),
    *("prompt", "prompt_tokens", "metadata", "select"),
)


async def _open(_: ComponentSettings, surroundings: Surroundings) -> Part:
    reads = {KNOWLEDGE.name} if surroundings.settings.knowledge.segments else set()
    return Part(reads=frozenset(reads))


JUDGE: Final = ComponentOf(name=NAME, settings=ComponentSettings, version=lambda _: None, open=_open)


def configured(settings: Settings) -> list[tuple[Component, Configured]]:
    """The judge, or None without a server."""
    if settings.llm.url is None:
        return []
    section = ComponentSettings()

    async def open_(surroundings: Surroundings) -> Part:
        return await _open(section, surroundings)

    return [(JUDGE, Configured(section, version_of(settings), open_))]


def version_of(settings: Settings) -> str:
    """The model and a hash of all settings that change its answers: scores of different versions are not comparable."""
    given = settings.llm.model_dump(mode="json", include=set(_ASKED))
    given["segments"] = settings.knowledge.segments
    if settings.web.url is not None:
        given["web"] = settings.web.model_dump(mode="json", include={"url", "select", "segments", "metadata"})
    if settings.llm.model is None:
        given["url"] = settings.llm.url
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]
    return f"{settings.llm.model or settings.llm.profile}-{digest}"
