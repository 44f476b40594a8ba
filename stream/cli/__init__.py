"""The `tagbus` command. A user error prints one line and exits with its code from `errors.py`."""

import os
import signal
import sys
from types import FrameType

from tagbus.stream.cli import streams

# What a shell says of a process that SIGINT ended.
INTERRUPTED = 128 + signal.SIGINT
# How long a command that SIGINT ends may take to clean up.
GRACE_SECONDS = 5.0


def main() -> None:
    """The console script."""
    # While the commands are imported there is nothing to clean up, and an import may turn KeyboardInterrupt into
    # another error.
    signal.signal(signal.SIGINT, _end)
    if os.getpid() == 1:
        # The first process of a container: what ends any other process by default does nothing to it.
        signal.signal(signal.SIGTERM, _end)
    streams.replace()
    from tagbus.stream.cli import commands

    # asyncio's own handler cancels a task first, which has no effect while it waits for standard input.
    signal.signal(signal.SIGINT, _interrupt)
    code = commands.execute(sys.argv[1:])
    # The interpreter joins threads and runs exit handlers, where a KeyboardInterrupt is a stack trace.
    signal.signal(signal.SIGINT, _end)
    sys.exit(code)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # Raised in a destructor it is lost, and the command would wait for its input for ever.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
    raise KeyboardInterrupt
