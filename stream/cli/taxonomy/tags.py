"""`tagbus tags`: import and export the taxonomy, show one tag, and show what an import would change."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from tagbus.stream.app import console
from tagbus.stream.cli.records.publish import send
from tagbus.stream.cli.taxonomy import shown, vocabulary
from tagbus.stream.cli.taxonomy.output import output
from tagbus.stream.cli.taxonomy.vocabulary import AliasLanguages, Collection, File, Form, Language, Notations, Scheme
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.codec import Record, encode_record
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.kafka.limits import topic_limit
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.comparison import ORDER, Change, Comparison, Counts
from tagbus.stream.vocabulary.hierarchy import oddities
from tagbus.stream.vocabulary.risks import risks

# An import that retires more than this share of the tags is most likely one of the wrong file.
MOST_RETIRED: Final = 0.10

tags = typer.Typer(help="The taxonomy: import, export, diff, show.", no_args_is_help=True)

Keep = Annotated[
    bool, typer.Option("--keep-others", help="keep tags that FILE does not name, unless it deprecates them")
]


@tags.callback()
def _group() -> None:
    """The taxonomy: import, export, diff, show."""


@tags.command("import")
def import_(
    file: File,
    form: Form = None,
    language: Language = None,
    alias_language: AliasLanguages = None,
    scheme: Scheme = None,
    collection: Collection = None,
    notations: Notations = False,  # noqa: FBT002 - a flag of the command line
    keep: Keep = False,  # noqa: FBT002 - a flag of the command line
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count what would change")] = False,  # noqa: FBT002
    force: Annotated[bool, typer.Option("--force", help="also publish what is likely a mistake")] = False,  # noqa: FBT002
) -> None:
    """Make the topic `tags` match FILE: publish the tags that differ, and retire those that FILE does not name.

    Nothing is published unless every tag is right. --force is for an import that retires more than 10% of the tags,
    shows tags to contents that do not see them now, brings back replaced ones, or replaces tags by none that exists.
    Run an interrupted import again: it publishes the rest.
    """
    settings = load()
    wanted = vocabulary.choice(language, alias_language, scheme, collection, notations)
    with Comparison(keep=keep) as comparison:
        vocabulary.load_file(comparison, file, form, wanted, topic_limit(settings.kafka, settings.topics.tags))
        vocabulary.load_topic(comparison, settings)
        counts = comparison.counts()
        for line in oddities(comparison):
            console.say(f"note: {line}")
        risky = [str(risk) for risk in risks(comparison)]
        for line in risky:
            console.say(f"note: this import would {line}")
        console.print_line(str(counts))
        if dry_run:
            return
        if not force:
            _require_no_risk(file, counts, risky, keep=keep)
        if counts.total:
            _publish(settings, comparison, counts.total)


@tags.command()
def diff(
    file: File,
    against: Annotated[Path | None, typer.Option("--against", help="another file instead of the topic")] = None,
    form: Form = None,
    language: Language = None,
    alias_language: AliasLanguages = None,
    scheme: Scheme = None,
    collection: Collection = None,
    notations: Notations = False,  # noqa: FBT002 - a flag of the command line
    keep: Keep = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Show each tag that an import of FILE would add (+), change or replace (~) or retire (-)."""
    wanted = vocabulary.choice(language, alias_language, scheme, collection, notations)
    with Comparison(keep=keep) as comparison:
        vocabulary.load_file(comparison, file, form, wanted, None)
        if against is None:
            vocabulary.load_topic(comparison, load())
        else:
            with Comparison() as other:
                vocabulary.load_file(other, against, None, wanted, None, is_other=True)
                comparison.load_before((tag.id, tag, str(against)) for tag in other.after())
        for kind in ORDER:
            for change in comparison.changes(kind):
                for line in shown.change(change):
                    console.print_line(line)
        console.say(str(comparison.counts()))


@tags.command()
def export(
    out: Annotated[Path | None, typer.Option("--out", help="output file; default: standard output")] = None,
    to: Annotated[forms.Form | None, typer.Option("--to", help="format; default: by --out, or jsonl")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="a vocabulary file instead of the topic: needs no Kafka")
    ] = None,
    form: Annotated[forms.Form | None, typer.Option("--form", help="format of the file of --from")] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="language of the names: read from --from, and written in SKOS")
    ] = None,
    alias_language: AliasLanguages = None,
    scheme: Scheme = None,
    collection: Collection = None,
    notations: Notations = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Write the tags by id, replaced ones marked: SKOS, CSV, TSV, JSON lines, or Annif's vocabulary (ids and names in
    force)."""
    target = to or ("jsonl" if out is None else forms.form_of(out))
    of_files = {"--form": form, "--alias-language": alias_language, "--scheme": scheme, "--collection": collection}
    given = [name for name, value in {**of_files, "--notations": notations}.items() if value]
    if source is None and given:
        raise UserError(f"{given[0]} chooses what is read from a file: give --from, or leave it out")
    with Comparison() as comparison:
        if source is None:
            vocabulary.load_topic(comparison, load())
        else:
            wanted = vocabulary.choice(language, alias_language, scheme, collection, notations)
            vocabulary.load_file(comparison, source, form, wanted, None)

        def found() -> Iterator[Tag]:
            return comparison.after() if source else (tag for tag, _ in comparison.before())

        with output(out) as stream:
            forms.write(found, stream, target, language)


@tags.command()
def show(
    what: Annotated[str, typer.Argument(metavar="ID|NAME", help="id of a tag, or its name or one of its aliases")],
    form: Annotated[Literal["text", "json"], typer.Option("--as", help="for people, or a JSON object a line")] = "text",
) -> None:
    """Show a tag as it is now, with its broader and narrower ones. Code 2 if there is none in force."""
    settings = load()
    with Comparison() as comparison:
        vocabulary.load_topic(comparison, settings)
        found = [one for one in comparison.before() if shown.is_called(one[0], what)]
        # An id is unique; a name need not be.
        found = [one for one in found if one[0].id == what] or found
        if not found:
            raise UserError(f"{settings.topics.tags} has no tag in force with the id or name {shorten(what)}")
        for tag, place in found:
            console.print_line(tag.model_dump_json() if form == "json" else shown.tag(comparison, tag, place))


def _require_no_risk(file: Path, counts: Counts, risky: list[str], *, keep: bool) -> None:
    """Raises UserError if more than MOST_RETIRED of the tags would be retired, or for any risk."""
    hint = ""
    if counts.leaving > MOST_RETIRED * counts.before:
        risky = [f"retire {counts.leaving} of {counts.before} tags, more than {MOST_RETIRED:.0%}", *risky]
        hint = "" if keep else "--keep-others keeps them, "
    if risky:
        raise UserError(f"{file} would {', and '.join(risky)}: --force does it, {hint}`tagbus tags diff` shows them")


def _publish(settings: Settings, comparison: Comparison, total: int) -> None:
    topic = settings.topics.tags
    writer = TopicWriter(settings.kafka, topic)
    records = (_record(change) for kind in ORDER for change in comparison.changes(kind))
    try:
        with console.bar(f"publishing to {topic}", total) as bar:
            send(writer, records, bar)
    finally:
        again = "" if writer.confirmed == total else "; the same import publishes the rest"
        console.say(f"published {writer.confirmed} of {total} records to {topic}{again}")


def _record(change: Change) -> Record:
    return Record(change.id.encode(), None) if change.after is None else encode_record(change.after)
