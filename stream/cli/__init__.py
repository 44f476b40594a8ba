"""The `tagbus` command. A user error prints one line and exits with its code from `errors.py`."""

import os
import signal
import sys
from importlib.metadata import entry_points
from types import FrameType

import typer
from typer.core import TyperGroup

from tagbus.stream.app import console
from tagbus.stream.cli import check, contract, demo, quality, release, replay, retag, run, skip, tag, tail, topics
from tagbus.stream.errors import TagbusError, UserError

app = typer.Typer(
    name="tagbus",
    help="Tags content as it is published: events in on Kafka, scored and explained tags out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run.run,
    run.index,
    tag.tag,
    topics.publish,
    topics.retire,
    tail.tail,
    replay.replay,
    skip.skip,
    retag.retag,
    contract.validate,
    check.check,
    quality.calibrate,
    quality.evaluate,
    contract.config,
    contract.asyncapi,
    contract.schema,
    demo.demo,
):
    app.command()(command)
app.add_typer(topics.topics, name="topics")
app.add_typer(release.release, name="release")


def main() -> None:
    """The console script."""
    command = _group()
    # asyncio's own handler cancels a task first, which has no effect while it waits for standard input.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        with command.make_context("tagbus", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except typer.TyperException as error:
        _leave(_as_user_error(error))
    except ExceptionGroup as group:
        _leave(_first(group))
    except TagbusError as error:
        _leave(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader closed the pipe, as in `tagbus tail | head`. Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _group() -> TyperGroup:
    """The commands of the service, and those that the entry point group `tagbus.commands` adds.

    An entry point names a typer command. It is imported for `tagbus --help` too, so it must be light.
    """
    group = typer.main.get_command(app)
    if not isinstance(group, TyperGroup):
        raise TypeError(f"{group} is no group of commands")
    for entry in entry_points(group="tagbus.commands"):
        group.add_command(entry.load(), entry.name)
    return group


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _as_user_error(error: typer.TyperException) -> UserError:
    """Convert a command line error to one line. Exits the process if typer has shown the help instead."""
    context = getattr(error, "ctx", None)
    path = "tagbus" if context is None else context.command_path
    if not error.format_message():
        sys.exit(UserError.exit_code)
    words = error.format_message().replace("Value error, ", "").rstrip(".")
    return UserError(f"{words}; `{path} --help` shows what there is")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of a task group; the others are its consequences."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _leave(error: Exception) -> None:
    if not isinstance(error, TagbusError):
        raise error
    console.say(f"tagbus: {error}")
    sys.exit(error.exit_code)
