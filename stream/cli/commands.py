"""The commands, and how each of them ends: its exit code, and one line for an error."""

import errno
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import typer
from typer.core import TyperGroup

from tagbus.stream.app import console
from tagbus.stream.cli import (
    INTERRUPTED,
    calibrate,
    compare,
    contract,
    create,
    evaluate,
    explain,
    memory,
    release,
    run,
    tag,
    views,
)
from tagbus.stream.cli.demo import demo
from tagbus.stream.cli.llm import prompt, synthesize
from tagbus.stream.cli.operate import acceptance, check, plan
from tagbus.stream.cli.records import ping, publish, replay, retag, skip, tail
from tagbus.stream.cli.taxonomy import exemplars, tags
from tagbus.stream.errors import TagbusError, UserError

# A file that takes no more, whichever it is: never a bug.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})

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
    run.feedback,
    run.index,
    views.views,
    tag.tag,
    explain.explain,
    publish.publish,
    publish.retire,
    tail.tail,
    ping.ping,
    replay.replay,
    skip.skip,
    retag.retag,
    contract.validate,
    check.check,
    plan.plan,
    acceptance.acceptance,
    calibrate.calibrate,
    evaluate.evaluate,
    compare.compare,
    contract.config,
    contract.asyncapi,
    contract.schema,
    demo.demo,
):
    app.command()(command)
app.add_typer(create.topics, name="topics")
app.add_typer(release.release, name="release")
app.add_typer(tags.tags, name="tags")
app.add_typer(memory.memory, name="memory")
app.add_typer(exemplars.exemplars, name="exemplars")
app.add_typer(prompt.prompt, name="prompt")
app.add_typer(synthesize.synthesize, name="synthesize")


def execute(arguments: Sequence[str]) -> int:
    """Run a command. Returns the exit code of the process, when the error is said and standard output is written."""
    code = _ended(lambda: _invoke(arguments))
    lost = _ended(sys.stdout.flush)
    return code or lost


def _invoke(arguments: Sequence[str]) -> None:
    command = _group()
    with command.make_context("tagbus", list(arguments)) as context:
        command.invoke(context)


def _ended(call: Callable[[], None]) -> int:
    """The exit code of a call. An error that is a bug is raised, and a stack trace."""
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


def _say(error: Exception) -> int:
    """Say the error in one line. Raises it if it is a bug."""
    if isinstance(error, OSError) and error.errno in FULL:
        error = UserError(f"{error.filename or 'a file'} cannot be written: {error.strerror}")
    if not isinstance(error, TagbusError):
        raise error
    console.say(f"tagbus: {error}")
    return error.exit_code
