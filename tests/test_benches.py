"""The benchmarks, which no other test runs: the names that they import from tagbus exist."""

import ast
import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def taken(file: Path) -> list[tuple[str, str]]:
    """Modules of tagbus and the names that a file imports from them."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    found = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tagbus")]
    return [(str(node.module), name.name) for node in found for name in node.names]


@pytest.mark.parametrize("file", sorted(BENCH.rglob("*.py")), ids=lambda file: str(file.relative_to(BENCH)))
def test_what_a_benchmark_imports_is_there(file: Path) -> None:
    for module, name in taken(file):
        if not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")
