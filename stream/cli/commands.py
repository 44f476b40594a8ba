"""The table of commands, and how each ends: an exit code, and one line for an error."""

import errno
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import typer
from typer.core import TyperGroup

from tagbus.stream.app import console
from tagbus.stream.cli import INTERRUPTED
from tagbus.stream.cli.lazy import LazyCommands
from tagbus.stream.errors import TagbusError, UserError

# Any file that cannot be written any more, or any folder where a file is in its place: never a bug.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOTDIR, errno.EEXIST})

# Name and definition: a function is a command, a typer application a group. In the order of the help.
COMMANDS = {
    "run": "run:run",
    "feedback": "run:feedback",
    "index": "run:index",
    "views": "views:views",
    "tag": "tag:tag",
    "explain": "explain:explain",
    "publish": "records.publish:publish",
    "retire": "records.publish:retire",
    "tail": "records.tail:tail",
    "ping": "records.ping:ping",
    "replay": "records.replay:replay",
    "skip": "records.skip:skip",
    "retag": "records.retag:retag",
    "validate": "contract:validate",
    "check": "operate.check:check",
    "plan": "operate.plan:plan",
    "acceptance": "operate.acceptance:acceptance",
    "calibrate": "quality.calibrate:calibrate",
    "evaluate": "quality.evaluate:evaluate",
    "compare": "quality.compare:compare",
    "config": "contract:config",
    "asyncapi": "contract:asyncapi",
    "schema": "contract:schema",
    "demo": "demo.demo:demo",
    "topics": "create:topics",
    "release": "release:release",
    "tags": "taxonomy.tags:tags",
    "memory": "memory:memory",
    "exemplars": "taxonomy.exemplars:exemplars",
    "prompt": "llm.prompt:prompt",
    "synthesize": "llm.synthesize:synthesize",
}


def execute(arguments: Sequence[str]) -> int:
    """Run a command. Returns the exit code of the process once the error is printed and standard output flushed."""
    code = _ended(lambda: _invoke(arguments))
    lost = _ended(sys.stdout.flush)
    return code or lost


def _invoke(arguments: Sequence[str]) -> None:
    command = _group()
    with command.make_context("tagbus", list(arguments)) as context:
        command.invoke(context)


def _ended(call: Callable[[], None]) -> int:
    """The exit code of a call. Raises an error that is a bug, so that it ends in a stack trace."""
    try:
        call()
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        return _say(_as_user_error(error))
    except ExceptionGroup as group:
        return _say(_first(group))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe, as in `tagbus tail | head`.
        return 0
    except (TagbusError, OSError) as error:
        return _say(error)
    return 0


def service_commands() -> LazyCommands:
    """The commands of the service."""
    return LazyCommands({name: f"tagbus.stream.cli.{target}" for name, target in COMMANDS.items()})


def _group() -> TyperGroup:
    """The commands of the service, and those that the entry point group `tagbus.commands` adds.

    An entry point names a typer command. It is imported for every command, so it must be light.
    """
    found = TyperGroup(
        name="tagbus",
        help="Tags content as it is published: events in on Kafka, scored and explained tags out.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        # Typer's type hint is dict, but any mapping works.
        commands=service_commands(),  # type: ignore[arg-type]
    )
    for entry in entry_points(group="tagbus.commands"):
        found.add_command(entry.load(), entry.name)
    return found


def _as_user_error(error: typer.TyperException) -> UserError:
    """Convert a command line error to one line. Exits the process if typer has already shown the help instead."""
    context = getattr(error, "ctx", None)
    path = "tagbus" if context is None else context.command_path
    if not error.format_message():
        sys.exit(UserError.exit_code)
    words = error.format_message().replace("Value error, ", "").rstrip(".")
    return UserError(f"{words}; see `{path} --help`")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of a task group; the others are its consequences."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _say(error: Exception) -> int:
    """Print the error on one line. Raises it if it is a bug."""
    if isinstance(error, OSError) and error.errno in FULL:
        error = UserError(f"{error.filename or 'a file'} cannot be written: {error.strerror}")
    if not isinstance(error, TagbusError):
        raise error
    console.say(f"tagbus: {error}")
    return error.exit_code
