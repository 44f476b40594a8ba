"""`tagbus compare`: the effect of other exemplars or tags on the quality, on contents with known tags."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.app import assemble, comparing, console
from tagbus.stream.app.comparing import compared, counts_of
from tagbus.stream.app.evaluation import K, content_of, in_force, tag_all
from tagbus.stream.app.places import files
from tagbus.stream.cli.tag import Cache, Exemplars, Tags, remember
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Exemplar, Tag, TaggedContent
from tagbus.stream.errors import UserError, shorten


def compare(
    file: Annotated[Path, typer.Argument(help="contents with their right tags: exemplars, one a line")],
    tags: Tags,
    exemplars: Exemplars = None,
    more: Annotated[
        Path | None, typer.Option("--with", help="additional exemplars of the second memory, one a line")
    ] = None,
    with_tags: Annotated[
        Path | None, typer.Option("--with-tags", help="tags that replace those of the same id, one a line")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="also write the figures here, JSON")] = None,
    cache: Cache = None,
) -> None:
    """Tag the contents of FILE with two memories: one without, one with the events of --with and --with-tags.

    Prints P@1 and R@10, also by how many exemplars of people a tag has: head (100 and more), torso, tail (fewer than
    10), new (none). No language model is asked.
    """
    if more is None and with_tags is None:
        raise UserError("both memories are the same: expected --with, --with-tags or both")
    files.require_distinct(file, tags, exemplars, more, with_tags)
    annotated = files.all_of(file, files.exemplar_of)
    taxonomy = files.all_of(tags, files.tag_of)
    known = files.all_of(exemplars, files.exemplar_of) if exemplars else []
    added = files.all_of(more, files.exemplar_of) if more else []
    others = files.all_of(with_tags, files.tag_of) if with_tags else []
    memory = {item.id for item in (*known, *added)}
    if both := [item.id for item in annotated if item.id in memory]:
        raise UserError(
            f"{file}: {shorten(both[0])} is among the exemplars too; take contents that memory does not hold"
        )
    # No judge: the comparison must not depend on a model's own knowledge.
    settings = load()
    settings = settings.model_copy(
        update={
            "llm": settings.llm.model_copy(update={"url": None}),
            "tagger": settings.tagger.model_copy(update={"tags": K}),
        }
    )
    replaced = {tag.id: tag for tag in others}
    second = [replaced.pop(tag.id, tag) for tag in taxonomy] + list(replaced.values())
    before, annotated = asyncio.run(_tagged(settings, cache, taxonomy, known, annotated))
    after, _ = asyncio.run(_tagged(settings, cache, second, [*known, *added], annotated))
    truth = {item.id: frozenset(item.accepted) for item in annotated}
    rows = compared(before, after, truth, counts_of(known))
    for line in comparing.lines(rows):
        console.print_line(line)
    if out is not None:
        files.write(out, json.dumps({"rows": [row.as_json() for row in rows]}, indent=2) + "\n")


async def _tagged(
    settings: Settings, cache: Path | None, tags: list[Tag], exemplars: list[Exemplar], annotated: list[Exemplar]
) -> tuple[list[TaggedContent], list[Exemplar]]:
    """The results, and the contents with their tags as results name them."""
    async with assemble.in_process(settings, cache) as stack:
        await remember(stack, tags, exemplars)
        annotated = await in_force(stack, annotated)
        with console.bar("tagging", len(annotated)) as bar:
            contents = [content_of(item) for item in annotated]
            return await tag_all(stack.uncalibrated(), contents, bar.advance), annotated
