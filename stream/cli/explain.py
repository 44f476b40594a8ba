"""`tagbus explain`: why a content has its tags and no others."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.assemble import Plan, TaggingStack
from tagbus.stream.app.explain.examine import examine
from tagbus.stream.app.explain.explanation import Explanation
from tagbus.stream.app.explain.table import MOST, tables
from tagbus.stream.app.explain.worker import as_worker
from tagbus.stream.app.places import files
from tagbus.stream.app.time_arguments import MOMENT, moment
from tagbus.stream.cli.records.newest import newest_content
from tagbus.stream.cli.tag import Cache, Exemplars, read_memory, remember
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import CheckFailed, Poison, UserError
from tagbus.stream.memory.kinds import KNOWLEDGE
from tagbus.stream.tagger import Failure, Tagger

BATCH = 64
What = Annotated[
    str,
    typer.Argument(
        metavar="CONTENT_ID|FILE", help="id of a content on its topic; or contents, a JSON object a line; - is stdin"
    ),
]
Tags = Annotated[Path | None, typer.Option("--tags", help="the taxonomy, a tag a line; unset: a worker's memory")]
Segments = Annotated[Path | None, typer.Option("--knowledge", help="segments of knowledge, one a line")]

PLAN = Plan(reads=frozenset({KNOWLEDGE.name}))


def explain(
    what: What,
    tags: Tags = None,
    exemplars: Exemplars = None,
    knowledge: Segments = None,
    cache: Cache = None,
    since: Annotated[str | None, typer.Option("--since", help=f"look for the content since: {MOMENT}")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="id of a tag: why it, or why not; repeatable")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="candidates in the table")] = MOST,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="all of it, a JSON object a content")] = False,
) -> None:
    """Explain the tags: each candidate, how it was found and where it was cut, the neighbours, the knowledge retrieved.

    The name of an existing file is taken as FILE. With --tags memory is filled from the files; without, it is that of a
    worker: the release in force, and the memory topics or the shared memory. A judge is asked and paid for;
    TAGBUS_BUDGET__ limits this run on its own, beside the workers.
    """
    settings = load()
    opened, contents = asked_for(settings, what, since, cache, (tags, exemplars, knowledge))
    failed = asyncio.run(_explain(opened, contents, tag or [], _json if as_json else partial(_table, most)))
    if failed:
        raise CheckFailed(f"{failed} contents could not be tagged; their lines say why")


def asked_for(
    settings: Settings, what: str, since: str | None, cache: Path | None, memory: tuple[Path | None, ...]
) -> tuple[AbstractAsyncContextManager[tuple[TaggingStack, Tagger]], Iterable[Content]]:
    """The tagger over a memory from files (tags, exemplars, knowledge) or a worker's, and the contents to explain.

    Raises UserError for arguments that do not fit, and as `newest_content` does.
    """
    start = moment("--since", since)
    tags, exemplars, knowledge = memory
    if tags is None and any(memory):
        raise UserError("--exemplars and --knowledge are given without --tags: name the whole memory, or none of it")
    file = Path(what) if what == "-" or _is_file(what) else None
    files.require_distinct(file, *memory)
    contents: Iterable[Content] = [newest_content(settings, what, start)] if file is None else _contents(file)
    opened = (
        as_worker(settings, cache, PLAN) if tags is None else _from_files(settings, cache, tags, exemplars, knowledge)
    )
    return opened, contents


def _is_file(what: str) -> bool:
    """Whether it names a readable file; an id may be anything."""
    return os.path.exists(what) and not os.path.isdir(what)


def _contents(file: Path) -> Iterator[Content]:
    for line in files.read_lines(file):
        try:
            yield files.content_of(line)
        except Poison as error:
            raise UserError(f"{line.place}: {error}") from None


@asynccontextmanager
async def _from_files(
    settings: Settings, cache: Path | None, tags: Path | None, exemplars: Path | None, knowledge: Path | None
) -> AsyncIterator[tuple[TaggingStack, Tagger]]:
    if tags is None:
        raise ValueError("memory from files without tags")
    async with assemble.in_process(settings, cache, PLAN) as stack:
        # Before memory is encoded, so that a mismatch of settings is reported immediately.
        tagger = stack.tagger()
        segments = files.all_of(knowledge, files.knowledge_of) if knowledge else []
        await remember(stack, *read_memory(tags, exemplars), segments)
        if cache is not None:
            await filling.save_memories(cache, stack.memories)
        yield stack, tagger


async def _explain(
    opened: AbstractAsyncContextManager[tuple[TaggingStack, Tagger]],
    contents: Iterable[Content],
    asked: Sequence[str],
    show: Callable[[Explanation], None],
) -> int:
    """Explain contents in order. Returns how many could not be tagged."""
    failed = 0
    async with opened as (stack, tagger):
        for chunk in files.chunks(contents, BATCH):
            for one in await tagger.explain_all(chunk):
                if isinstance(one, Failure):
                    failed += 1
                    console.say(console.printable(f"{one.id}: {one.error}"))
                else:
                    show(await examine(stack, one, asked))
    return failed


def _json(found: Explanation) -> None:
    sys.stdout.write(found.model_dump_json() + "\n")


def _table(most: int, found: Explanation) -> None:
    for one in tables(found, most):
        console.stdout.print(one)
    console.stdout.print()
