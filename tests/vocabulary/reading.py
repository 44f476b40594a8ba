"""Shared by the tests of vocabularies: read a file from a string, and collect the result."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from tagbus.stream.contract.events import Tag
from tagbus.stream.vocabulary import forms
from tagbus.stream.vocabulary.entry import Choice, Deprecated, Entry, Remarks, Wrong

HEAD = """\
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix dct: <http://purl.org/dc/terms/> .
@prefix : <http://example.org/> .
"""


@dataclass(frozen=True)
class Found:
    """The result of reading a file."""

    tags: dict[str, Tag]
    deprecated: list[str]
    wrong: list[Wrong]
    remarks: list[str]

    def one(self) -> Tag:
        (tag,) = self.tags.values()
        return tag


def read(
    text: str | bytes,
    form: forms.Form = "turtle",
    *,
    language: str | None = None,
    alias_languages: Sequence[str] = (),
    scheme: str | None = None,
    collection: str | None = None,
    notations: bool = False,
) -> Found:
    """Read a file of the name `file`."""
    data = text.encode() if isinstance(text, str) else text
    remarks = Remarks()
    choice = Choice(language, tuple(alias_languages), scheme, collection, notations)
    read = list(forms.read("file", io.BytesIO(data), form, choice, remarks))
    return Found(
        {one.tag.id: one.tag for one in read if isinstance(one, Entry)},
        [one.id for one in read if isinstance(one, Deprecated)],
        [one for one in read if isinstance(one, Wrong)],
        list(remarks.lines()),
    )


def written(tags: Sequence[Tag], form: forms.Form, language: str | None = None) -> bytes:
    """The same tags as a file."""
    output = io.BytesIO()
    forms.write(lambda: tags, output, form, language)
    return output.getvalue()
