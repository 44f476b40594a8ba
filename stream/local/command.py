"""Run a command as a child process and wait for it to end."""

import subprocess
from collections.abc import Mapping, Sequence

from tagbus.stream.errors import DependencyDown, shorten

# Maximum characters of a command's last line in an error.
LINE = 300


def output_of(name: str, command: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> str:
    """The standard output of a command, as UTF-8. `variables`: its environment; None: this process's.

    Raises DependencyDown if it fails, with `name` and the last line of standard error, or the exit code if that is
    empty, and if it takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, encoding="utf-8", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise DependencyDown(f"{name}: not finished within {seconds:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        why = shorten(said[-1], LINE) if said else f"exited with code {done.returncode} and no output"
        raise DependencyDown(f"{name}: {why}")
    return done.stdout
