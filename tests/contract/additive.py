"""What "additive" means: a schema may gain optional fields, and nothing else about it may change.

So an older reader finds every field that it knows, as it knows it, and a newer reader takes every older record. A limit
that grows, or a word that joins a list, is no such change: older readers would refuse what newer writers send.
"""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

Json = dict[str, JsonValue]

# What people read: it may be said better.
PROSE = frozenset({"title", "description", "examples"})
# Of these new members may come.
OPEN = frozenset({"properties", "$defs"})


def changes(before: JsonValue, after: JsonValue, where: str = "$") -> Iterator[str]:
    """Every place where a schema is no extension of an earlier one."""
    if isinstance(before, dict) and isinstance(after, dict):
        opened = where.rpartition(".")[2] in OPEN
        ignored = frozenset() if opened else PROSE
        for name in sorted((before.keys() | after.keys()) - ignored):
            if name not in after:
                yield f"{where}.{name}: gone"
            elif name in before:
                yield from changes(before[name], after[name], f"{where}.{name}")
            elif not opened and name not in OPEN:
                yield f"{where}.{name}: new"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from changes(*pair, f"{where}[{number}]")
    elif before != after:
        yield f"{where}: {before} became {after}"


def fields(schema: Json) -> dict[str, bool]:
    """The paths of all fields of an event, also in lists (`tags.evidence.votes`), and which are required."""
    return dict(_fields(schema, schema, ""))


def _fields(node: JsonValue, schema: Json, where: str) -> Iterator[tuple[str, bool]]:
    if not isinstance(node, dict):
        return
    branches = node.get("anyOf") if where else None
    for inner in (_resolved(node, schema), node.get("items"), *(branches if isinstance(branches, list) else ())):
        if inner is not node:
            yield from _fields(inner, schema, where)
    properties, required = node.get("properties"), node.get("required")
    for name, one in properties.items() if isinstance(properties, dict) else ():
        yield f"{where}{name}", isinstance(required, list) and name in required
        yield from _fields(one, schema, f"{where}{name}.")


def _resolved(node: Json, schema: Json) -> JsonValue:
    """The definition that a reference names; the node itself where it is none."""
    reference, definitions = node.get("$ref"), schema.get("$defs")
    if not isinstance(reference, str) or not isinstance(definitions, dict):
        return node
    return definitions[reference.rpartition("/")[2]]


def least(known: Mapping[str, bool]) -> set[str]:
    """The paths that a record cannot do without: those that are required in what is required."""
    ancestors = {path: path.split(".")[:-1] for path in known}
    return {
        path
        for path, required in known.items()
        if required and all(known[".".join(ancestors[path][: depth + 1])] for depth in range(len(ancestors[path])))
    }


def given(value: JsonValue, known: Mapping[str, bool], where: str = "") -> Iterator[tuple[str, JsonValue]]:
    """The paths of those `known` fields that a record has, with their values."""
    if isinstance(value, list):
        for one in value:
            yield from given(one, known, where)
    elif isinstance(value, dict):
        for name, one in value.items():
            if (path := f"{where}{name}") in known:
                yield path, one
                yield from given(one, known, f"{path}.")


def with_strangers(value: JsonValue, known: Mapping[str, bool], where: str = "") -> JsonValue:
    """The record with a field more in every object of the contract, none in the maps that hold a producer's names."""
    if isinstance(value, list):
        return [with_strangers(one, known, where) for one in value]
    if not isinstance(value, dict) or not any(path.startswith(where) for path in known):
        return value
    inner = {name: with_strangers(one, known, f"{where}{name}.") for name, one in value.items()}
    return {**inner, "from_the_future": {"x": [1]}}
