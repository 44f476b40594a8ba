"""`tagbus exemplars`: import contents with known tags from JSON lines, tables and Annif's corpora."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.app import console, published
from tagbus.stream.app.places import files
from tagbus.stream.cli.records.publish import send
from tagbus.stream.cli.taxonomy.output import output
from tagbus.stream.cli.taxonomy.vocabulary import Said, load_file
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, encode, encode_record
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.contract.fields import Source
from tagbus.stream.errors import CheckFailed, Poison, UserError
from tagbus.stream.feedback.published import Publishing
from tagbus.stream.kafka.limits import SizeLimit, topic_limit
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.vocabulary import corpus, corpus_folder
from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.corpus import Known
from tagbus.stream.vocabulary.entry import Choice, Remarks, Wrong
from tagbus.stream.vocabulary.exemplars import Corpus

exemplars = typer.Typer(help="Contents whose tags are known, from files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="a corpus: .jsonl .csv .tsv, or a folder of texts; - is standard input")]
Form = Annotated[corpus.Form | None, typer.Option("--form", help="format of FILE; default: by its extension")]


# Wrong items among contents are marked as such.
Fitting = Callable[[Iterator[Known | Wrong]], Iterator[Known | Wrong]]


@dataclass
class Target:
    """The topic that exemplars of a source are published to, and their form there."""

    topic: str
    record: Callable[[Exemplar], Record]

    @classmethod
    def of(cls, settings: Settings, source: Source) -> "Target":
        """The topic that the source writes."""
        if source == "machine":
            return cls(settings.topics.exemplars, encode_record)
        run = Publishing()
        return cls(settings.topics.feedback, lambda one: encode_record(run.decision(one)))


@exemplars.callback()
def _group() -> None:
    """Contents whose tags are known, from files."""


@exemplars.command("import")
def import_(
    file: File,
    form: Form = None,
    source: Annotated[Source, typer.Option("--source", help="who decided what FILE holds")] = "people",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count what would change")] = False,  # noqa: FBT002 - a flag of the command line
    force: Annotated[bool, typer.Option("--force", help="also publish what is likely a mistake")] = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Publish the exemplars of FILE that are missing from the topic `exemplars` or differ there. None is withdrawn.

    Those of people are published as decisions (topic `feedback`), as `tagbus publish` does.
    Nothing is published unless every one is right. --force is for an import that shows exemplars to contents that do
    not see them now. Run an interrupted import again: it publishes the rest.
    Tags that are not in force are reported; they count once they are.
    """
    settings = load()
    with Corpus(source) as found:
        found.load_tags(_tags(settings))
        target = Target.of(settings, source)
        _load_file(found, file, form, _fitting(target, topic_limit(settings.kafka, target.topic)))
        found.load_before(published.exemplars(settings))
        counts = found.counts()
        risky = [str(risk) for risk in found.risks()]
        for line in risky:
            console.say(f"note: this import would {line}")
        console.print_line(str(counts))
        if dry_run:
            return
        if risky and not force:
            raise UserError(
                f"{file} would {', and '.join(risky)}: --force does it; expected their `scopes` in the file"
            )
        if counts.total:
            _publish(settings, target, found.changes(), counts.total)


@exemplars.command()
def convert(
    file: File,
    form: Form = None,
    source: Annotated[Source, typer.Option("--source", help="who decided what FILE holds")] = "people",
    tags: Annotated[Path | None, typer.Option("--tags", help="tags, JSON lines: what labels in FILE mean")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="output file; default: standard output")] = None,
) -> None:
    """Write a corpus as JSON lines, for `tagbus calibrate`, `tag --exemplars` and the like. Needs no Kafka."""
    with Corpus(source) as found, Comparison() as taxonomy:
        if tags is not None:
            load_file(taxonomy, tags, None, Choice(), None)
            found.load_tags(taxonomy.after())
        _load_file(found, file, form, iter, said=tags is not None)
        with output(out) as stream:
            for one in found.changes():
                stream.write(encode(one) + b"\n")


def _load_file(found: Corpus, file: Path, form: corpus.Form | None, fitting: Fitting, *, said: bool = True) -> None:
    """Read a corpus and print what is unusual in it. Prints each wrong content, then raises CheckFailed."""
    remarks, wrong = Remarks(), Said()
    with _reading(file, form, remarks) as contents:
        found.load_after(fitting(contents), wrong, remarks)
    for line in remarks.lines():
        console.say(f"note: {line}")
    if said and found.unknown.counts:
        console.say(f"note: {found.unknown}")
    if wrong.count:
        raise CheckFailed(f"wrong contents: {wrong.count}; nothing is changed")


@contextmanager
def _reading(file: Path, form: corpus.Form | None, remarks: Remarks) -> Iterator[Iterator[Known | Wrong]]:
    if file.is_dir():
        yield corpus_folder.read(file, remarks)
        return
    with files.text(file) as (first, stream):
        yield corpus.read(str(file), stream, form or corpus.form_of(file, first), remarks)


def _fitting(target: Target, limit: SizeLimit | None) -> Fitting:
    """The contents; those that the topic would reject are marked wrong."""

    def fitting(contents: Iterator[Known | Wrong]) -> Iterator[Known | Wrong]:
        for one in contents:
            try:
                if isinstance(one, Known):
                    record = target.record(one.exemplar)
                    if limit is not None:
                        limit.check(record)
                yield one
            except Poison as error:
                yield Wrong(one.place, str(error))

    return fitting


def _tags(settings: Settings) -> Iterator[Tag]:
    with Comparison() as taxonomy:
        taxonomy.load_before(published.tags(settings))
        for tag, _ in taxonomy.before():
            yield tag


def _publish(settings: Settings, target: Target, changes: Iterator[Exemplar], total: int) -> None:
    topic = target.topic
    writer = TopicWriter(settings.kafka, topic)
    try:
        with console.bar(f"publishing to {topic}", total) as bar:
            send(writer, map(target.record, changes), bar)
    finally:
        again = "" if writer.confirmed == total else "; the same import publishes the rest"
        console.say(f"published {writer.confirmed} of {total} records to {topic}{again}")
