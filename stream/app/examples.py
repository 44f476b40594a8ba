"""The example data that travels in the package."""

import importlib.resources
from pathlib import Path


def example(name: str) -> Path:
    """A file of the example data, which travels in the package."""
    return Path(str(importlib.resources.files("tagbus.examples") / name))
