"""Commands are imported on lookup: `tagbus tail` does not wait for the imports of `tagbus run`."""

import math
import subprocess
import sys

import pytest
from typer.core import TyperCommand, TyperGroup

from tagbus.stream.cli.commands import COMMANDS, service_commands
from tagbus.stream.cli.lazy import finite
from tagbus.stream.errors import UserError


def imported(statement: str) -> set[str]:
    """The modules of a fresh interpreter after a statement."""
    code = f"import sys\nfrom tagbus.stream.cli.commands import service_commands\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split())


def test_none_is_imported_before_it_is_looked_up() -> None:
    places = {f"tagbus.stream.cli.{place.split(':')[0]}" for place in COMMANDS.values()}
    assert not imported("found = service_commands(); len(found), 'run' in list(found)") & places


def test_a_command_that_reads_a_topic_needs_no_model_and_no_store() -> None:
    found = imported("service_commands()['tail']")
    assert "tagbus.stream.cli.records.tail" in found
    assert not {"tagbus.stream.app.assemble", "onnxruntime", "scipy", "qdrant_client"} & found


def test_a_worker_starts_without_what_only_a_fit_needs() -> None:
    assert not {"scipy.optimize", "scipy.special", "torch"} & imported("service_commands()['run']")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_has_its_name_and_a_help(name: str) -> None:
    command = service_commands()[name]
    assert isinstance(command, TyperCommand | TyperGroup)
    assert command.name == name
    assert command.help


def test_they_can_be_added_and_taken_away() -> None:
    found = service_commands()
    command = found["tail"]
    del found["tail"]
    assert "tail" not in found
    found["follow"] = command
    assert list(found)[-1] == "follow"
    assert len(found) == len(COMMANDS)


@pytest.mark.parametrize("command", ["ping --seconds inf", "run --rate nan", "release build one --every inf"])
def test_nan_and_infinity_are_refused(command: str) -> None:
    name, *arguments = command.split()
    with pytest.raises(UserError, match="expected a finite number"):
        service_commands()[name].main(arguments, standalone_mode=False)


@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf])
def test_the_option_is_named_with_its_value(given: float) -> None:
    with pytest.raises(UserError, match=rf"^--max-rate {given}: expected a finite number$"):
        finite(lambda max_rate: max_rate)(max_rate=given)
