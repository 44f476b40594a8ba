"""Shared by the commands over vocabulary files: their options, and the comparison of a file with the topic."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tagbus.stream.app import console, published
from tagbus.stream.app.places import files
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.errors import CheckFailed, Poison, UserError, shorten
from tagbus.stream.kafka.limits import SizeLimit
from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.comparison import Comparison
from tagbus.stream.vocabulary.entry import Choice, Entry, Read, Remarks, Wrong

# Wrong tags that are listed.
SAID = 20

File = Annotated[Path, typer.Argument(help="a vocabulary: .ttl .nt .rdf .jsonld .csv .tsv .jsonl; - is standard input")]
Form = Annotated[forms.Form | None, typer.Option("--form", help="format of FILE; default: by its extension")]
Language = Annotated[
    str | None,
    typer.Option("--language", help="language of the labels that become names, such as en; others go to `names`"),
]
AliasLanguages = Annotated[
    list[str] | None, typer.Option("--alias-language", help="also take alternative labels of this language as aliases")
]
Notations = Annotated[
    bool, typer.Option("--notations", help="also take notations as aliases, if contents and people use them")
]
Scheme = Annotated[str | None, typer.Option("--scheme", help="IRI of a ConceptScheme: only its concepts")]
Collection = Annotated[str | None, typer.Option("--collection", help="IRI of a Collection: only its members")]


def choice(
    language: str | None,
    alias_languages: list[str] | None,
    scheme: str | None,
    collection: str | None,
    notations: bool,  # noqa: FBT001 - as the user says
) -> Choice:
    """The choice that the options make."""
    return Choice(language, tuple(alias_languages or ()), scheme, collection, notations)


def load_file(
    comparison: Comparison,
    file: Path,
    form: forms.Form | None,
    wanted: Choice,
    limit: SizeLimit | None,
    *,
    is_other: bool = False,
) -> None:
    """Read a file as the wanted side and print what is unusual in it. Prints wrong tags, then raises CheckFailed.

    Raises UserError for a file in another format, which is most likely why one has no tags, and for a choice that has
    no effect on it. `is_other`: the file that another is compared with; it may be empty, and of another form.
    """
    remarks, wrong = Remarks(), Said()
    with files.text(file) as (first, stream):
        found = form or forms.form_of(file, first)
        if not is_other:
            _require_effect(file, found, wanted)
        comparison.load_after(_fitting(forms.read(str(file), stream, found, wanted, remarks), limit), wrong)
    for line in remarks.lines():
        console.say(f"note: {line}")
    if wrong.count:
        raise CheckFailed(f"wrong tags: {wrong.count}; nothing is changed")
    if comparison.is_empty() and not is_other:
        raise UserError(f"{file} has no tags; expected {forms.expected(found)}")


def load_topic(comparison: Comparison, settings: Settings) -> None:
    """Read the topic as the current side."""
    unreadable = published.Unreadable()
    comparison.load_before(published.tags(settings, unreadable))
    if unreadable.count:
        console.say(f"note: {settings.topics.tags} has {unreadable.count} records that are not tags; they are skipped")


class Said:
    """Prints the first wrong tags, and counts all."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, wrong: Wrong) -> None:
        self.count += 1
        if self.count <= SAID:
            console.say(str(wrong))
        elif self.count == SAID + 1:
            console.say("and more")


def _require_effect(file: Path, form: forms.Form, wanted: Choice) -> None:
    """Raises UserError for a scheme or a collection in a form that has none: every tag of the file would be read."""
    for option, iri in (("--scheme", wanted.scheme), ("--collection", wanted.collection)):
        if iri is not None and form in ("csv", "tsv", "jsonl", "annif"):
            raise UserError(
                f"{option} {shorten(iri, 120)} has no effect on {file}, which is {form}, expected a file of SKOS"
            )


def _fitting(found: Iterator[Read], limit: SizeLimit | None) -> Iterator[Read]:
    """The tags; those that the topic would reject are marked wrong."""
    check: Callable[[Entry], Read] = _as_it_is if limit is None else lambda entry: _checked(entry, limit)
    for one in found:
        yield check(one) if isinstance(one, Entry) else one


def _as_it_is(entry: Entry) -> Read:
    return entry


def _checked(entry: Entry, limit: SizeLimit) -> Read:
    try:
        limit.check(encode_record(entry.tag))
    except Poison as error:
        return Wrong(entry.place, str(error))
    return entry
