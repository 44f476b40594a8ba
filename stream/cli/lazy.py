"""Commands that are imported when they are looked up.

All of them together take 2 s of CPU to import, `tagbus tail` alone 0.6.
"""

import importlib
from collections.abc import Iterator, Mapping, MutableMapping

import typer
from typer._click import Command


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
    app = defined
    if not isinstance(app, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(defined)  # type: ignore[type-var]
    found = typer.main.get_command(app)
    found.name = name
    return found
