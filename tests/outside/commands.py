"""Several commands one after another in one process, as `tagbus` has them, so that a test traces one process.

The argument is a JSON list of argument lists. The last line that it prints is the exit code of each.
"""

import json
import re
import sys
from itertools import takewhile

from tagbus.stream.cli import main


def run(arguments: list[str]) -> int:
    """The exit code of a command."""
    sys.argv = ["tagbus", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    return 0


def name(arguments: list[str]) -> str:
    """The words before the first file or option."""
    return " ".join(takewhile(lambda word: re.fullmatch("[a-z-]*[a-z]", word), arguments))


if __name__ == "__main__":
    codes = {name(arguments): run(arguments) for arguments in json.loads(sys.argv[1])}
    print("\n" + json.dumps(codes))
