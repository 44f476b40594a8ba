"""`tagbus prompt show`: the verbatim prompts of a content for the language model. Nothing is sent."""

import asyncio
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Annotated

import typer

from tagbus.stream.app import console
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.app.places import files
from tagbus.stream.app.time_arguments import MOMENT
from tagbus.stream.cli.explain import BATCH, Segments, Tags, What, asked_for
from tagbus.stream.cli.tag import Cache, Exemplars
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import CheckFailed, UserError
from tagbus.stream.llm.base import Asked
from tagbus.stream.tagger import Delayed, Failure, Tagger
from tagbus.stream.tagger.judge import JudgeStage

prompt = typer.Typer(help="Look at the prompts of the language model.", no_args_is_help=True)


@prompt.callback()
def _group() -> None:
    """Without this callback typer turns the only command into the group itself."""


@prompt.command()
def show(
    what: What,
    tags: Tags = None,
    exemplars: Exemplars = None,
    knowledge: Segments = None,
    cache: Cache = None,
    since: Annotated[str | None, typer.Option("--since", help=f"look for the content since: {MOMENT}")] = None,
) -> None:
    """Print the prompts for the language model, with upper estimates of the tokens. Nothing is sent to it.

    The name of an existing file is taken as FILE. Memory is as for `tagbus explain`.
    """
    settings = load()
    if settings.llm.url is None:
        raise UserError("TAGBUS_LLM__URL is not set, so there are no prompts to show")
    opened, contents = asked_for(settings, what, since, cache, (tags, exemplars, knowledge))
    if failed := asyncio.run(_show(_printer(settings), opened, contents)):
        raise CheckFailed(f"{failed} contents cannot be tagged; their lines say why")


def _printer(settings: Settings) -> Callable[[Asked], None]:
    """A function that prints all prompts of one content. Raises UserError if the extra or the version is missing."""
    try:
        from tagbus.stream.llm.open import prompts_of
        from tagbus.stream.llm.prompts.show import shown
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'tagbus[llm]'") from None
    prompts = prompts_of(settings.llm)

    def show(asked: Asked) -> None:
        found = shown(asked, prompts, settings.llm)
        cut = f", cut: {', '.join(found.cut)}" if found.cut else ""
        limit = f"{found.longest} of {settings.llm.prompt_tokens} tokens at most"
        lines = [f"content {console.printable(asked.content.id)}: prompt {prompts.version}, {limit}{cut}"]
        for part in (*found.shared, *found.questions):
            lines += [f"--- {console.printable(part.name)}, {part.tokens} tokens", part.text]
        sys.stdout.write("\n".join(lines) + "\n\n")

    return show


async def _show(
    show: Callable[[Asked], None],
    opened: AbstractAsyncContextManager[tuple[TaggingStack, Tagger]],
    contents: Iterable[Content],
) -> int:
    """Show the prompts of contents in order. Returns how many cannot be tagged."""
    failed = 0
    async with opened as (stack, tagger):
        names = [stage.name for stage in stack.stages]
        judge = next(stage for stage in stack.stages if isinstance(stage, JudgeStage))
        before = names[names.index(judge.name) - 1]
        for chunk in files.chunks(contents, BATCH):
            works = []
            for one in await tagger.explain(chunk, until=before):
                if isinstance(one, Failure | Delayed):
                    failed += 1
                    console.say(console.printable(f"{one.id}: {one.error if isinstance(one, Failure) else one.reason}"))
                else:
                    works.append(one.work)
            for asked in await judge.would_ask(works):
                show(asked)
    return failed
