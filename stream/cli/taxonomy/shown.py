"""Tags and changes of tags as lines for people."""

import unicodedata
from collections.abc import Iterator, Mapping

from tagbus.stream.app.console import printable
from tagbus.stream.contract.events import Tag
from tagbus.stream.vocabulary.comparison import Change, Comparison

# Maximum number of narrower tags listed.
NARROWER = 50


def change(one: Change) -> Iterator[str]:
    """A line with `+`, `-` or `~`, and a line for each field that changes."""
    tag = one.after or one.before
    sign = "+" if one.before is None else "-" if one.after is None else "~"
    yield printable(f"{sign} {one.id}  {tag.name if tag else ''}")
    if one.before is None or one.after is None:
        return
    for name in Tag.model_fields:
        old, new = _text(getattr(one.before, name)), _text(getattr(one.after, name))
        if old != new:
            yield printable(f"    {name}: {old} -> {new}")


def tag(comparison: Comparison, one: Tag, position: str) -> str:
    """A tag with the names of its broader and narrower ones, and the position of its record."""
    broader, narrower = list[str](), list[str]()
    for other, _ in comparison.before():
        if other.id in one.parents:
            broader.append(_named(other))
        if one.id in other.parents:
            narrower.append(_named(other))
    missing = sorted(set(one.parents) - {name.split("  ")[0] for name in broader})
    more = [f"and {len(narrower) - NARROWER} more"] if len(narrower) > NARROWER else []
    lines = [
        ("id", [one.id]),
        ("name", [one.name]),
        *((f"name ({language})", [name]) for language, name in sorted(one.names.items())),
        ("aliases", list(one.aliases)),
        ("description", one.description.splitlines()),
        ("broader", [*broader, *(f"{parent}  (not in force)" for parent in missing)]),
        ("narrower", narrower[:NARROWER] + more),
        ("scopes", list(one.scopes)),
        ("replaced by", list(one.replaced_by)),
        ("record", [position]),
    ]
    width = max(len(name) for name, values in lines if values) + 2
    return "\n".join(
        f"{printable(name) if number == 0 else '':<{width}}{printable(value)}"
        for name, values in lines
        for number, value in enumerate(values)
    )


def is_called(one: Tag, what: str) -> bool:
    """Whether a tag has this id, name or alias, in any language; names are compared by what they look like, in either
    case."""
    wanted = _folded(what)
    return one.id == what or any(_folded(name) == wanted for name in (one.name, *one.names.values(), *one.aliases))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _named(one: Tag) -> str:
    return f"{one.id}  {one.name}"


def _text(value: object) -> str:
    """The text of a field; lists are sorted, because a different order is not a change."""
    if isinstance(value, Mapping):
        return ", ".join(f"{language}={name}" for language, name in sorted(value.items())) or "none"
    if isinstance(value, tuple):
        return ", ".join(sorted(map(str, value))) or "none"
    return str(value) or "none"
