"""The `tagbus` command. A user error prints one line and exits with its code from `errors.py`."""

import atexit
import os
import signal
import sys
from types import FrameType

from tagbus.stream.cli import streams

# The exit code that a shell reports for a process ended by SIGINT.
INTERRUPTED = 128 + signal.SIGINT
# How long a command may take to clean up after SIGINT.
GRACE_SECONDS = 5.0


def main() -> None:
    """The console script."""
    # While the commands are imported there is nothing to clean up, and an import may turn KeyboardInterrupt into
    # another error.
    signal.signal(signal.SIGINT, _end)
    # The first to be registered, so the last to be called: after it the interpreter takes its own handlers away, and
    # the alarm of `_interrupt` would end the process with another code.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.0)
    if os.getpid() == 1:
        # The kernel ignores signals without a handler for PID 1, the first process of a container.
        signal.signal(signal.SIGTERM, _end)
    streams.replace()
    from tagbus.stream.cli import commands

    # asyncio's own handler cancels a task first, which has no effect while it waits for standard input.
    signal.signal(signal.SIGINT, _interrupt)
    code = commands.execute(sys.argv[1:])
    # The interpreter joins threads and runs exit handlers; a KeyboardInterrupt there would print a stack trace.
    signal.signal(signal.SIGINT, _end)
    sys.exit(code)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # Raised in a destructor the exception is lost, and the command would wait for its input forever.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
    raise KeyboardInterrupt
