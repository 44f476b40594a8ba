"""`tagbus synthesize`: a language model writes exemplars for tags that have few, and descriptions for bare names."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer

from tagbus.stream.app import console, published
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record
from tagbus.stream.contract.events import Exemplar, Tag, exemplar_key
from tagbus.stream.errors import CheckFailed, UserError
from tagbus.stream.kafka.writer import TopicWriter

if TYPE_CHECKING:
    from tagbus.stream.app.judge.synthesis import Known, Lacking
    from tagbus.stream.llm.synthesis.subject import Wanted
    from tagbus.stream.llm.synthesis.write import Text

synthesize = typer.Typer(
    help="Have a language model write exemplars for tags that have few, and descriptions for bare names.",
    no_args_is_help=True,
)

Tags = Annotated[Path | None, typer.Option("--tags", help="the taxonomy, a tag a line; unset: the topic `tags`")]
Exemplars = Annotated[
    Path | None,
    typer.Option("--exemplars", help="annotated contents, one a line; unset, as --tags: the topic `exemplars`"),
]
Out = Annotated[Path | None, typer.Option("--out", help="file to append the generated events to, a JSON object a line")]
Publish = Annotated[bool, typer.Option("--publish", help="publish the generated events to their topic")]
Most = Annotated[int | None, typer.Option("--most", min=1, help="maximum number of tags to write for")]


@synthesize.command("exemplars")
def exemplars_(
    tags: Tags = None,
    exemplars: Exemplars = None,
    out: Out = None,
    few: Annotated[int, typer.Option("--few", min=1, help="write for tags with fewer exemplars of people")] = 3,
    each: Annotated[int, typer.Option("--each", min=1, max=20, help="exemplars to write per tag")] = 3,
    most: Most = None,
    *,
    publish: Publish = False,
) -> None:
    """Write exemplars for tags that have few, fewest first.

    They have source `machine`, so they never outvote people. A tag that already has generated exemplars is left out:
    run the command again for the rest if it was stopped or its budget was spent.
    """
    _require_extra()
    if tags is not None and exemplars is None:
        raise UserError("--exemplars is missing beside --tags: without it every tag counts as one without exemplars")
    from tagbus.stream.app.judge.synthesis import exemplars_of
    from tagbus.stream.llm.synthesis.subject import Exemplars as Wanted

    given = Given(tags, exemplars, out, publish)
    _write(given, Task(lambda known: known.few(few, most), Wanted(each), exemplars_of, "exemplars", _exemplar_key))


@synthesize.command()
def descriptions(
    tags: Tags = None,
    exemplars: Exemplars = None,
    out: Out = None,
    most: Most = None,
    *,
    publish: Publish = False,
) -> None:
    """Write a description for each tag that has none; the output is the whole tag."""
    _require_extra()
    from tagbus.stream.app.judge.synthesis import described
    from tagbus.stream.llm.synthesis.subject import Description

    given = Given(tags, exemplars, out, publish)
    _write(given, Task(lambda known: known.bare(most), Description(), described, "tags", _tag_key))


@dataclass(frozen=True, slots=True)
class Given:
    """The sources of tags and exemplars, and the destinations of generated events."""

    tags: Path | None
    exemplars: Path | None
    out: Path | None
    publish: bool

    def known(self, settings: Settings) -> "Known":
        """The existing tags and exemplars, including those that an earlier run wrote to the file."""
        from tagbus.stream.app.judge.synthesis import Known

        if self.tags is not None:
            taxonomy: Sequence[Tag] = files.all_of(self.tags, files.tag_of)
        else:
            found = dict[str, Tag]()
            for tag_id, tag, _ in published.tags(settings):
                found.pop(tag_id, None)
                if tag is not None:
                    found[tag_id] = tag
            taxonomy = list(found.values())
        return Known(taxonomy, self._exemplars(settings))

    def _exemplars(self, settings: Settings) -> Iterator[Exemplar]:
        if self.exemplars is not None:
            yield from files.all_of(self.exemplars, files.exemplar_of)
        elif self.tags is None:
            newest = dict[str, Exemplar]()
            for key, one in published.exemplars(settings):
                newest.pop(key, None)
                if one is not None:
                    newest[key] = one
            yield from newest.values()

    def done(self) -> set[str]:
        """Tags that an earlier run has written something for in the file."""
        if self.out is None or not self.out.exists():
            return set()
        done = set[str]()
        for line in self.out.read_bytes().splitlines():
            # The last line of a killed run may be incomplete, and any other may be someone else's.
            with suppress(ValueError, RecursionError):
                found = json.loads(line)
                tags = found.get("accepted") or [found.get("id")] if isinstance(found, dict) else []
                if isinstance(tags, list):
                    done.update(one for one in tags if isinstance(one, str))
        return done


@dataclass(frozen=True, slots=True)
class Task:
    """What to write: for which tags, with which question, and as which events.

    `lines` of a tag, its text and the prompt's version, each with a `key` on `topic`.
    """

    choose: "Callable[[Known], list[Lacking]]"
    wanted: "Wanted"
    lines: "Callable[[Lacking, Text, str], list[bytes]]"
    topic: Literal["tags", "exemplars"]
    key: Callable[[bytes], bytes]


def _write(given: Given, task: Task) -> None:
    if given.out is None and not given.publish:
        raise UserError("no destination for the generated events, expected --out FILE, --publish or both")
    files.require_distinct(given.tags, given.exemplars, given.out)
    settings = load()
    if settings.llm.url is None:
        raise UserError("TAGBUS_LLM__URL is not set, so there is no language model to write with")
    done = given.done()
    lacking = [one for one in task.choose(given.known(settings)) if one.tag.id not in done]
    why = asyncio.run(_run(settings, given, lacking, task))
    if left := sum(why.values()):
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(why.items()))
        raise CheckFailed(f"nothing was written for {left} of {len(lacking)} tags: {said}; run again for these")


async def _run(settings: Settings, given: Given, lacking: "list[Lacking]", task: Task) -> Counter[str]:
    """Write for these tags. Returns the number of tags that nothing was written for, by reason."""
    from tagbus.stream.app.judge import synthesis

    why, written, asked = Counter[str](), 0, 0
    with ExitStack() as exits:
        file = exits.enter_context(_appended(given.out)) if given.out else None
        topic = settings.topics.tags if task.topic == "tags" else settings.topics.exemplars
        writer = exits.enter_context(TopicWriter(settings.kafka, topic)) if given.publish else None
        bar = exits.enter_context(console.bar("writing", len(lacking)))
        async with synthesis.author(settings) as author:
            async for place, text in author.write([one.subject for one in lacking], task.wanted):
                asked += 1
                bar.advance(1)
                if text.why:
                    why[text.why] += 1
                for line in task.lines(lacking[place], text, author.prompts.version):
                    written += 1
                    if file is not None:
                        file.write(line + b"\n")
                    if writer is not None:
                        writer.send(Record(task.key(line), line))
                if file is not None:
                    file.flush()
            used = author.usage
    if unasked := len(lacking) - asked:
        why["unasked"] = unasked
    console.say(
        f"{written} written for {len(lacking) - sum(why.values())} tags: {used.calls} calls, "
        f"{used.tokens_in} tokens in, {used.tokens_out} out"
    )
    return why


def _exemplar_key(line: bytes) -> bytes:
    return exemplar_key(json.loads(line)["id"], "machine").encode()


def _tag_key(line: bytes) -> bytes:
    return str(json.loads(line)["id"]).encode()


def _appended(out: Path) -> IO[bytes]:
    try:
        half = out.exists() and out.stat().st_size > 0 and not out.read_bytes().endswith(b"\n")
        file = out.open("ab")
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; expected a file to write to") from None
    if half:
        file.write(b"\n")
    return file


def _require_extra() -> None:
    """Raises UserError if the extra `llm` is not installed."""
    try:
        import tagbus.stream.app.judge.synthesis  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'tagbus[llm]'") from None
