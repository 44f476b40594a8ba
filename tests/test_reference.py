"""The generated pages match the code."""

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[1] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_the_page_is_that_of_the_code() -> None:
    assert (DOCS / "reference.md").read_text() == generator().page(), "`make reference` rewrites it"


def test_the_plans_are_those_of_the_code() -> None:
    assert (DOCS / "capacity.md").read_text() == generator().capacity(), "`make reference` rewrites it"
