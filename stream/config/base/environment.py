"""The environment variables of tagbus: which of them are settings, and the errors for wrong ones.

Kubernetes and Docker add variables for a service named tagbus, and compose files set variables to nothing: neither is a
setting. White space around a value is stripped: a secret made with `echo` ends with a line feed, and the lines of a
variables file saved by an editor on Windows end with carriage returns.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import from_json

from tagbus.stream.config.base.service_links import is_address, service_links
from tagbus.stream.errors import ReleaseMismatch, UserError, shorten

log = logging.getLogger(__name__)

PREFIX: Final = "TAGBUS_"
# Variables of the test suite and the benchmarks, which are not settings of the service.
FOREIGN: Final = ("TAGBUS_TEST_", "TAGBUS_BENCH_")
# The fields that hold JSON; their values may be secrets.
JSON: Final = frozenset({("KAFKA", "OPTIONS"), ("KAFKA", "SECRETS"), ("OTEL", "HEADERS")})
QUOTES: Final = frozenset("'\"")
SECRET: Final = frozenset({"options", "secrets", "api_key", "password", "headers"})
# The fields of each section by variable; empty for one whose fields are checked elsewhere.
Fields = Mapping[str, frozenset[str]]


def variables(fields: Fields) -> dict[str, str]:
    """The variables of this process that are meant for tagbus, valid or not."""
    ours = _ours()
    return {name: ours[name] for name in ours.keys() - _links(ours, fields)}


def checked(fields: Fields) -> dict[str, str]:
    """As `variables`. Raises UserError for one that names no section or no field of it, even if its value is empty."""
    ours, given = _ours(), variables(fields)
    if ignored := sorted(ours.keys() - given.keys()):
        log.debug("ignored variables that Kubernetes or Docker made for a service: %s", ", ".join(ignored))
    for variable in sorted(given):
        section, field = _parts(variable)
        known = fields.get(section)
        if known is None or (field and known and field.partition("__")[0] not in known):
            raise UserError(f"{variable} is not a setting of tagbus; `tagbus config` lists them all")
        if _is_quoted(given[variable]) and SECRET.isdisjoint(field.lower().split("__")):
            words = "the quotes are part of the value (docker --env-file keeps them), expected none around it"
            raise UserError(f"{variable}={shorten(given[variable])}: {words}")
        if (section, field) in JSON and (twice := _twice(given[variable])):
            raise UserError(f"{variable}: {shorten(twice)} occurs twice, expected each name once")
    return given


def _twice(value: str) -> str:
    """A name that a JSON object has twice: of two values the last one would count, without a word."""
    found: list[str] = []

    def names(pairs: list[tuple[str, object]]) -> None:
        found.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)

    with suppress(ValueError):
        json.loads(value, object_pairs_hook=names)
    return found[0] if found else ""


def without_json(given: Mapping[str, str], fields: Fields) -> str:
    """The error for a variable whose value should be JSON and is not; the message omits the value."""
    for variable, value in given.items():
        section, field = _parts(variable)
        if not value or not (not field or (section, field) in JSON):
            continue
        try:
            from_json(value)
        except ValueError:
            if field:
                return f"{variable}: expected a JSON object of strings"
            some = min(fields[section] or {"NAME"})
            return f"{variable}: expected a JSON object, or a single setting such as {variable}__{some}"
    return "a setting that takes a JSON object holds something else"


def variable_of(setting: str) -> str:
    """The variable of a setting named as in the tree: kafka.brokers."""
    return PREFIX + setting.upper().replace(".", "__")


@contextmanager
def named(setting: str, path: Path | None, releases: Path | None) -> Iterator[None]:
    """Prefix errors about the file at a setting's path with the setting.

    A path in `releases`, the folder of all releases, was found there, not given, and is left as it is.
    """
    try:
        yield
    except (UserError, ReleaseMismatch) as error:
        elsewhere = path is None or (releases is not None and path.is_relative_to(releases))
        if elsewhere or not str(error).startswith(str(path)):
            raise
        raise type(error)(f"{variable_of(setting)}: {error}") from None


def in_one_line(error: ValidationError) -> str:
    """The invalid values on one line: variable, value (never a secret's) and expected value."""
    lines = []
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        inside = len(path) > 2 and (path[0].upper(), path[1].upper()) in JSON
        # A field inside a JSON object is named with dots.
        variable = f"{variable_of('.'.join(path[:2]))}: {'.'.join(path[2:])}" if inside else variable_of(".".join(path))
        # A whole section may hold a secret.
        secret = len(path) == 1 or problem["type"] == "secret" or not SECRET.isdisjoint(path)
        lines.append(f"{variable}={'********' if secret else shorten(problem['input'])}: {problem['msg']}")
    return "; ".join(lines)


def _ours() -> dict[str, str]:
    return {
        name: value.strip()
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX) and not name.upper().startswith(FOREIGN)
    }


def _links(ours: Mapping[str, str], fields: Fields) -> frozenset[str]:
    """The variables that another program made. A section's value is a JSON object, so an address under a section's name
    is one of them."""
    addresses = {name for name, value in ours.items() if _is_section(name, fields) and is_address(value)}
    return service_links(ours) | addresses


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in QUOTES


def _parts(variable: str) -> tuple[str, str]:
    """The section and the field that a variable names; the field is empty if it names a whole section."""
    section, _, field = variable.upper().removeprefix(PREFIX).partition("__")
    return section, field


def _is_section(variable: str, fields: Fields) -> bool:
    return variable.upper().removeprefix(PREFIX) in fields
