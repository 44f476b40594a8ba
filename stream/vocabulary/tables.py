"""Read and write tags as CSV and TSV, including Annif's vocabularies."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import shorten
from tagbus.stream.vocabulary.entry import (
    Choice,
    Deprecated,
    Entry,
    Read,
    Remarks,
    Wrong,
    choose_language,
    made,
    matches,
)
from tagbus.stream.vocabulary.source import text_lines
from tagbus.stream.vocabulary.table import Row, bare, join, rows, split, writer

LISTS: Final = ("aliases", "parents", "scopes", "replaced_by")
COLUMNS: Final = ("id", "name", "description", *LISTS)
# Annif's names for the same columns, and its column of notations, which become aliases on request.
_SAME: Final = {"uri": "id", "label": "name"}
_NOTATION: Final = "notation"
_LABEL: Final = re.compile(r"(?:label|name)_(.+)")


def read(name: str, stream: BinaryIO, delimiter: str, choice: Choice, remarks: Remarks) -> Iterator[Read]:
    """The tags of a table; columns are COLUMNS and `name_LANGUAGE`. Raises UserError for anything else."""
    language: str | None = None
    for row in rows(name, stream, delimiter, _lacking):
        if isinstance(row, Wrong):
            yield row
            continue
        cells = {_SAME.get(column, column): cell for column, cell in row.cells.items()}
        if "uri" in row.cells:
            cells["id"] = bare(cells["id"])
        labels = {found[1]: cell for column, cell in cells.items() if (found := _LABEL.fullmatch(column))}
        for column in row.besides((*COLUMNS, *_SAME, _NOTATION)):
            if not _LABEL.fullmatch(column):
                remarks.add(f"column {shorten(column)} is ignored; the columns are {', '.join(COLUMNS)}", row.place)
        if language is None:
            language = "" if "name" in cells else choose_language(name, dict.fromkeys(labels, 0), choice)
        aliases = _aliases(split(cells.get("aliases", "")), cells.get(_NOTATION, ""), choice)
        if "name" not in cells and not any(labels.values()):
            yield _unnamed(row, cells["id"], remarks)
        else:
            yield _tag(row.place, cells, labels, aliases, language, remarks)


def read_annif(name: str, stream: BinaryIO, choice: Choice) -> Iterator[Read]:
    """Read Annif's vocabulary without a header: URI in angle brackets, label, notation, separated by tabs."""
    for number, line in text_lines(name, stream):
        cells = line.rstrip("\r\n").split("\t")
        place = f"{name}:{number}"
        if not line.strip():
            continue
        if len(cells) < 2:
            yield Wrong(place, f"{shorten(cells[0])} is wrong, expected <URI>, tab, label")
        elif not cells[1].strip():
            yield Deprecated(place, bare(cells[0]))
        else:
            aliases = _aliases((), cells[2] if len(cells) > 2 else "", choice)
            yield made(place, {"id": bare(cells[0]), "name": cells[1], "aliases": aliases})


def write(tags: Iterable[Tag], languages: Sequence[str], output: BinaryIO, delimiter: str) -> None:
    """Write a table; `languages`: those of all `names`, one column each."""
    put = writer(output, delimiter, [*COLUMNS, *(f"name_{language}" for language in languages)])
    for tag in tags:
        lists = (join(values) for values in (tag.aliases, tag.parents, tag.scopes, tag.replaced_by))
        put([tag.id, tag.name, tag.description, *lists, *(tag.names.get(language, "") for language in languages)])


def write_annif(tags: Iterable[Tag], output: BinaryIO) -> None:
    """Write Annif's vocabulary: ids and names of the tags in force."""
    for tag in (one for one in tags if not one.replaced_by):
        output.write(f"<{tag.id}>\t{' '.join(tag.name.split())}\n".encode())


def _lacking(header: Sequence[str]) -> str | None:
    if not {"id", "uri"} & set(header):
        return "a column `id` or `uri`"
    for one, other in (*_SAME.items(), *((f"label_{tongue}", f"name_{tongue}") for tongue in _languages(header))):
        if {one, other} <= set(header):
            return f"only one of {shorten(one)} and {shorten(other)}"
    named = any(column in {"name", "label"} or _LABEL.fullmatch(column) for column in header)
    return None if named else "a column `name`, or one `label_LANGUAGE` a language"


def _languages(header: Sequence[str]) -> list[str]:
    return [found[1] for column in header if (found := _LABEL.fullmatch(column))]


def _tag(
    place: str,
    cells: Mapping[str, str],
    labels: Mapping[str, str],
    aliases: tuple[str, ...],
    language: str,
    remarks: Remarks,
) -> Entry | Wrong:
    names = {tongue: label for tongue, label in labels.items() if label}
    name = cells["name"] if "name" in cells else _name(place, names, language, remarks)
    fields = {
        "id": cells["id"],
        "name": name,
        "description": cells.get("description", ""),
        "names": names,
        **{column: split(cells.get(column, "")) for column in LISTS},
        "aliases": aliases,
    }
    return made(place, fields)


def _unnamed(row: Row, tag_id: str, remarks: Remarks) -> Wrong | Deprecated:
    """A row without any label: Annif's marker of a concept that is no longer used, if the row is whole."""
    if missing := sorted(column for column in row.missing if _LABEL.fullmatch(column)):
        return Wrong(row.place, f"the row ends before {shorten(missing[0])}, expected a label")
    remarks.add("tags whose labels are all empty are retired", row.place)
    return Deprecated(row.place, tag_id)


def _aliases(listed: Sequence[str], notation: str, choice: Choice) -> tuple[str, ...]:
    """The aliases of a row, including its notation on request."""
    return (*listed, notation.strip()) if choice.notations and notation.strip() else tuple(listed)


def _name(place: str, names: dict[str, str], language: str, remarks: Remarks) -> str:
    """Move the name out of `names`: the chosen language's, else English, else any."""
    chosen = sorted((tongue for tongue in names if matches(language, tongue)), key=len)
    tongue = next(one for one in (*chosen, "en", *names) if one in names)
    if tongue not in chosen:
        remarks.add(f"has no label in {language}: the name is in {tongue}", place)
    return names.pop(tongue)
