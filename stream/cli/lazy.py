"""Commands that are imported when they are looked up.

All of them together take 2 s of CPU to import, `tagbus tail` alone 0.6.
"""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from typer._click import Command

from tagbus.stream.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")


class LazyCommands(MutableMapping[str, Command]):
    """Commands by name, in order. Each is imported and built on its first lookup."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        """`targets`: for each name `module:attribute`, a function or a typer application."""
        self._found: dict[str, Command | str] = dict(targets)

    def __getitem__(self, name: str) -> Command:
        found = self._found[name]
        if isinstance(found, str):
            module, attribute = found.split(":")
            found = self._found[name] = _command(name, getattr(importlib.import_module(module), attribute))
        return found

    def __setitem__(self, name: str, command: Command) -> None:
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _command(name: str, defined: object) -> Command:
    """A function as a command of that name, a typer application as a group."""
    if isinstance(defined, typer.Typer):
        app = defined
        for one in app.registered_commands:
            one.callback = None if one.callback is None else finite(one.callback)
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(finite(defined))  # type: ignore[arg-type]
    found = typer.main.get_command(app)
    found.name = name
    return found


def finite(command: Callable[P, T]) -> Callable[P, T]:
    """The command, with UserError for an option that is nan or infinite: both pass typer where it has no limit."""

    @wraps(command)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        for name, value in options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} {value}: expected a finite number")
        return command(*args, **options)

    return checked
