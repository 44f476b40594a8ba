"""From a row of the table to a tagger: its settings, and a tagging stack over a corpus."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from tagbus.models.data.corpus import Corpus
from tagbus.models.evaluate.rows import MODELS, Row
from tagbus.stream.app import assemble, components, console, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.config import PREFIX, Settings, load
from tagbus.stream.recall import second_encoder

# Tags per content.
K: Final = 10
# Settings of this process that would silently change a row's figures.
FIGURES: Final = tuple(
    f"{PREFIX}{name}"
    for name in ("COMPONENTS", "RECALL", "TAGGER", "MEMORY", "RELEASES", "ENCODER__FOLDER", "ENCODER__FP16")
)


def variables_of(row: Row, models: Path) -> dict[str, str]:
    """The environment variables of a row, with the folder of trained models filled in."""
    return filled(row.settings, models)


def filled(settings: Mapping[str, str], models: Path) -> dict[str, str]:
    """Settings with the folder of trained models filled in."""
    return {name: value.replace(MODELS, str(models)) for name, value in settings.items()}


def settings_of(row: Row, models: Path) -> Settings:
    """Return the row's settings; those of this process apply if they change no figure. Raises UserError as `load`
    does."""
    with environment(variables_of(row, models)):
        settings = load()
    return settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": K})})


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables temporarily: settings are read from nowhere else."""
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith(FIGURES):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@asynccontextmanager
async def with_memory(settings: Settings, corpus: Corpus, cache: Path) -> AsyncIterator[TaggingStack]:
    """A stack of encoder and memory alone, over all tags and training contents; see `assemble.over`.

    New embeddings are stored in `cache`. With C2C2T off, contents are never searched and not encoded.
    """
    bare = components.only(settings, second_encoder.NAME)
    async with assemble.in_process(bare, cache) as stack:
        tags, instances = corpus.tags(), settings.recall.c2c2t
        contents = sum(1 for _ in corpus.exemplars("train")) if instances else 0
        with console.bar("filling memory", len(tags) + contents) as bar:
            known = corpus.exemplars("train") if instances else iter(())
            await filling.fill(stack.projection(), {"tags": tags, "exemplars": known}, bar.advance)
        if instances and not all((cache / memory.release).exists() for memory in stack.memories):
            await filling.save_memories(cache, stack.memories)
        yield stack
