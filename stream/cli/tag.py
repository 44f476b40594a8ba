"""`tagbus tag`: tag contents from a file to standard output, without Kafka."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Exemplar, Knowledge, Tag
from tagbus.stream.errors import CheckFailed, Poison
from tagbus.stream.tagger import Failure, Tagger

BATCH = 256

File = Annotated[Path, typer.Argument(help="contents, a JSON object a line; - is standard input")]
Tags = Annotated[Path, typer.Option("--tags", help="the taxonomy, a tag a line")]
Exemplars = Annotated[Path | None, typer.Option("--exemplars", help="annotated contents, an exemplar a line")]
Cache = Annotated[Path | None, typer.Option("--cache", help="folder that keeps embeddings for the next run")]


def tag(
    tags: Tags,
    file: File = Path("-"),
    exemplars: Exemplars = None,
    cache: Cache = None,
) -> None:
    """Tag the contents of FILE: a JSON object per line, in input order, with the input's ids.

    A line that cannot be tagged gives {"id", "line", "error"}, and the command ends with code 3.
    A judge is asked and paid for; TAGBUS_BUDGET__ limits this run on its own, beside the workers.
    """
    settings = load()
    failed = asyncio.run(_tag(settings, file, tags, exemplars, cache))
    if failed:
        raise CheckFailed(f"{failed} contents could not be tagged; their lines say why")


async def _tag(settings: Settings, file: Path, tags: Path, exemplars: Path | None, cache: Path | None) -> int:
    files.require_distinct(file, tags, exemplars)
    lines = files.read_lines(file)
    async with assemble.in_process(settings, cache) as stack:
        # Before memory is encoded, so that a mismatch of settings is reported immediately.
        tagger = stack.tagger()
        await remember(stack, *read_memory(tags, exemplars))
        if cache is not None:
            await filling.save_memories(cache, stack.memories)
        failed = 0
        for chunk in files.chunks(lines, BATCH):
            failed += await _answer(tagger, chunk)
        return failed


def read_memory(tags: Path, exemplars: Path | None) -> tuple[list[Tag], list[Exemplar]]:
    """The events to fill memory from. Raises UserError that names the line."""
    return files.all_of(tags, files.tag_of), files.all_of(exemplars, files.exemplar_of) if exemplars else []


async def remember(
    stack: assemble.TaggingStack,
    taxonomy: Sequence[Tag],
    annotated: Sequence[Exemplar],
    segments: Sequence[Knowledge] = (),
) -> None:
    """Fill the memory, with a progress bar."""
    if not taxonomy:
        console.say("warning: the taxonomy is empty: no content gets a tag")
    with console.bar("encoding memory", len(taxonomy) + len(annotated) + len(segments)) as bar:
        await filling.fill(
            stack.projection(), {"tags": taxonomy, "exemplars": annotated, "knowledge": segments}, bar.advance
        )


async def _answer(tagger: Tagger, lines: Sequence[files.Line]) -> int:
    """Tag one chunk and print one line per input line, in order. Returns the number of failures."""
    contents = []
    wrong: dict[int, Poison] = {}
    for number, line in enumerate(lines):
        try:
            contents.append(files.content_of(line))
        except Poison as error:
            wrong[number] = error
    results = iter(await tagger.explain_all(contents))
    failed = 0
    for number, line in enumerate(lines):
        if number in wrong:
            answer = _failure(None, line, wrong[number])
        else:
            found = next(results)
            if not isinstance(found, Failure):
                sys.stdout.write(encode(found.result).decode() + "\n")
                continue
            answer = _failure(found.id, line, found.error)
        failed += 1
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return failed


def _failure(content_id: str | None, line: files.Line, error: Poison) -> dict[str, str | None]:
    return {"id": content_id, "line": line.place, "error": str(error)}
