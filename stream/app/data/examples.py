"""The example data in the package."""

import importlib.resources
from pathlib import Path


def example(name: str) -> Path:
    """The path of an example file in the package."""
    return Path(str(importlib.resources.files("tagbus.examples") / name))
