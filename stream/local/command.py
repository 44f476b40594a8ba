"""A command as a child process that runs to its end."""

import subprocess
from collections.abc import Mapping, Sequence

from tagbus.stream.errors import DependencyDown, shorten

# Characters of the last line that a command says.
LINE = 300


def output_of(name: str, command: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> str:
    """The standard output of a command, as UTF-8. `variables`: its environment; None: this process's.

    Raises DependencyDown with `name` and the last line of standard error, or the exit code of one that says nothing,
    where it fails, and where it takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, encoding="utf-8", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise DependencyDown(f"{name}: not done within {seconds:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        why = shorten(said[-1], LINE) if said else f"ended with code {done.returncode} and said nothing"
        raise DependencyDown(f"{name}: {why}")
    return done.stdout
