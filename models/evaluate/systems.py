"""From a row of the table to a tagger: its settings, and a tagging stack over a corpus."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tagbus.models.data.corpus import Corpus
from tagbus.models.evaluate.rows import MODELS, Row
from tagbus.stream.app import assemble, console
from tagbus.stream.app.assemble import Brain
from tagbus.stream.app.trained import open_learnt
from tagbus.stream.config import Settings, load

# Tags per content.
K: Final = 10


def variables_of(row: Row, models: Path) -> dict[str, str]:
    """The environment variables of a row, with the folder of trained models filled in."""
    return {name: value.replace(MODELS, str(models)) for name, value in row.settings.items()}


def settings_of(row: Row, models: Path) -> Settings:
    """The settings of this process, overridden by those of the row. Raises UserError as `load` does."""
    with _environment(variables_of(row, models)):
        settings = load()
    return settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": K})})


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables temporarily: settings are read from nowhere else."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@asynccontextmanager
async def with_memory(settings: Settings, corpus: Corpus, cache: Path) -> AsyncIterator[Brain]:
    """A stack of encoder and memory alone, over all tags and training contents; see `with_components`.

    New embeddings are stored in `cache`. With C2C2T off, contents are never searched and not encoded.
    """
    bare = settings.model_copy(
        update={
            "heads": settings.heads.model_copy(update={"folder": None}),
            "labeltree": settings.labeltree.model_copy(update={"folder": None}),
            "rank": settings.rank.model_copy(update={"folder": None}),
            "cross_encoder": settings.cross_encoder.model_copy(update={"folder": None}),
        }
    )
    memory = await assemble.cached_memory(cache, bare)
    async with assemble.brain(bare, memory) as brain:
        tags, instances = corpus.tags(), settings.recall.c2c2t
        contents = sum(1 for _ in corpus.exemplars("train")) if instances else 0
        with console.bar("filling memory", len(tags) + contents) as bar:
            known = corpus.exemplars("train") if instances else iter(())
            await assemble.fill(brain.projection(), {"tags": tags, "exemplars": known}, bar.advance)
        stores = [memory.exemplars, *([] if memory.beside is None else [memory.beside.exemplars])]
        if instances and not all((cache / store.release).exists() for store in stores):
            await assemble.save_memory(cache, memory)
        yield brain


@asynccontextmanager
async def with_components(brain: Brain, settings: Settings) -> AsyncIterator[Brain]:
    """The same encoder and memory with the components of these settings: filling a memory of 328,152 contents takes
    longer than tagging 10,130. Raises as `open_learnt` does."""
    trained = await open_learnt(settings, brain.release.name)
    try:
        yield replace(brain, settings=settings, learnt=trained, literal=assemble.literal_of(settings, brain.memory))
    finally:
        await trained.close()
