"""Text is UTF-8 in every locale: each call that opens text names the encoding."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("stream", "models", "bench", "examples")
# By name, how many arguments come before `encoding`.
TEXT_METHODS = {"read_text": 0, "write_text": 1}
PROCESSES = {"run", "Popen", "check_output"}
MODES = set("rwaxbt+")


def unspecified(tree: ast.AST) -> Iterator[int]:
    """Lines with a call that leaves the encoding to the locale."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and "encoding" not in {keyword.arg for keyword in node.keywords}:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            text = {keyword.arg for keyword in node.keywords} & {"text", "universal_newlines"}
            if (
                (name in TEXT_METHODS and len(node.args) <= TEXT_METHODS[name])
                or (name == "open" and any(map(is_text_mode, node.args)))
                or (name in PROCESSES and text)
            ):
                yield node.lineno


def is_text_mode(argument: ast.expr) -> bool:
    """Whether it is the mode of an `open`, and one of text."""
    mode = argument.value if isinstance(argument, ast.Constant) else None
    return isinstance(mode, str) and 0 < len(mode) < 4 and set(mode) <= MODES and "b" not in mode


@pytest.mark.parametrize(
    "line",
    [
        "path.read_text()",
        'path.write_text("x")',
        'path.open("w")',
        'open(path, "r")',
        'lzma.open(path, "rt")',
        "subprocess.run(command, text=True)",
    ],
)
def test_a_call_that_leaves_it_to_the_locale_is_found(line: str) -> None:
    assert list(unspecified(ast.parse(line))) == [1]


def test_no_call_leaves_it_to_the_locale() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if (lines := list(unspecified(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}
